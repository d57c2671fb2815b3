"""Event streams over real sockets, time moved by hand: what is said, when, to whom, and how they end."""

import asyncio
import socket
import time
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest

from registry.dashboard import live, streams
from registry.dashboard.live import BEAT
from registry.dashboard.model import Event, Kind
from tests.registry.dashboard.fleet import member, service
from tests.registry.dashboard.house import House, until

ONE = service("digits", member("digits-1"), member("digits-2"))
WORSE = service("digits", member("digits-1"), member("digits-2", health="critical", since=1))


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    house.show(ONE)
    async with house.open():
        yield house


async def version_of(house, path="/"):
    text = (await house.get(path)).text
    return text.partition('data-version="')[2].partition('"')[0]


async def test_who_has_the_page_hears_at_first_only_how_it_stands(house) -> None:
    async with house.follow("/instances", await version_of(house, "/instances")) as stream:
        assert stream.status == 200
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert stream.headers["Cache-Control"] == "no-store"
        assert await stream.next() == {"now": house.clock.time(), "heard": house.clock.time(), "live": True}
        assert await stream.rest() == []


async def test_a_change_reaches_who_follows_as_what_has_changed_alone(house) -> None:
    async with house.follow("/instances?sort=id", await version_of(house, "/instances?sort=id")) as stream:
        await stream.next()
        house.show(WORSE)
        await house.clock.advance(1.0)
        message = await stream.next()
        assert set(message["parts"]) >= {"row:digits/digits-2"}
        assert "row:digits/digits-1" not in message["parts"]
        assert "critical" in message["parts"]["row:digits/digits-2"]
        assert "order" not in message
        assert (await stream.next())["live"] is True


async def test_a_change_after_a_silence_waits_for_no_beat(house) -> None:
    await house.clock.advance(0.5)  # pages are looked at on the full second
    async with house.follow("/instances", await version_of(house, "/instances")) as stream:
        await stream.next()
        await house.clock.advance(1.0)
        house.show(WORSE)
        await house.clock.advance(0.5)
        assert "critical" in str(await stream.parts(1.0))


@pytest.mark.parametrize("known", ["", "another.0.3", "now"])
async def test_who_has_an_old_page_or_one_of_another_process_gets_the_whole(house, known) -> None:
    async with house.follow("/instances?sort=id", known) as stream:
        message = await stream.next()
        assert {"row:digits/digits-1", "row:digits/digits-2", "fresh", "notice"} <= set(message["parts"])
        assert message["order"] == {"ids": ["row:digits/digits-1", "row:digits/digits-2"]}
        assert message["v"] == await version_of(house, "/instances?sort=id")


async def test_rows_in_another_order_are_told(house) -> None:
    async with house.follow("/instances", await version_of(house, "/instances")) as stream:
        await stream.next()
        house.show(WORSE)
        await house.clock.advance(1.0)
        assert (await stream.parts())["order"]["ids"] == ["row:digits/digits-2", "row:digits/digits-1"]


async def test_silence_is_filled_with_a_beat(house) -> None:
    async with house.follow("/about", await version_of(house, "/about")) as stream:
        await stream.next()
        for _ in range(3):
            began = house.clock.time()
            await house.clock.advance(BEAT - 0.1)
            assert await stream.rest(0.05) == []
            await house.clock.advance(0.1)
            message = await stream.next()
            assert set(message) == {"now", "heard", "live"}
            assert message["now"] == began + BEAT


async def test_at_most_one_message_of_parts_a_second(house) -> None:
    async with house.follow("/instances", await version_of(house, "/instances")) as stream:
        await stream.next()
        told = []
        for number in range(40):  # eight seconds
            house.show(service("digits", member("digits-1", version=f"1.{number}")))
            await version_of(house, "/instances")  # somebody else draws it anew
            await house.clock.advance(0.2)
            told += [each for each in await stream.rest(0.01) if "v" in each]
        assert 6 <= len(told) <= 8
        assert "1.3" in str(told[-1]["parts"])


async def test_the_registry_lost_is_told_at_once_and_back_too(house) -> None:
    async with house.follow("/about", await version_of(house, "/about")) as stream:
        await stream.next()
        began = house.clock.time()
        house.show(ONE, live=False, heard=began, error="connection refused")
        await house.clock.advance(1.0)
        parts = (await stream.parts())["parts"]
        assert "The registry does not answer." in parts["notice"]
        assert "connection refused" in parts["notice"]
        assert (await stream.next())["live"] is False
        await house.clock.advance(15.0)
        house.show(ONE)
        await house.clock.advance(1.0)
        told = [each["parts"] for each in await stream.rest() if "v" in each]
        assert any("old" in each.get("fresh", "") for each in told)
        assert "notice" in told[-1]
        assert "<p" not in told[-1]["notice"]


async def test_a_packed_stream_can_be_read_event_by_event(house) -> None:
    async with house.follow("/instances", packed=True) as stream:
        assert stream.headers["Content-Encoding"] == "gzip"
        assert "parts" in await stream.next()
        await stream.next()
        house.show(WORSE)
        await house.clock.advance(1.0)
        assert "critical" in str(await stream.next())


async def test_a_page_that_goes_says_leave_and_the_stream_ends(house) -> None:
    order = house.state.drains.start("undrain", ONE, [], reason="a test", who="ada")
    async with house.follow(f"/orders/{order.id}") as stream:
        await stream.rest()
        del house.state.drains._orders[order.id]
        house.show(WORSE)
        await house.clock.advance(1.0)
        messages = await stream.rest(1.0)
        assert "no order" in messages[-2]["leave"].lower()
        assert messages[-1] is None


async def test_a_reader_that_takes_nothing_is_let_go(house, monkeypatch) -> None:
    monkeypatch.setattr(streams, "_PATIENCE", 0.3)
    host, _, port = house.shown.address.partition(":")
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, (host, int(port)))
        await loop.sock_sendall(reader, b"GET /stream?at=%2Finstances HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: house.shown.snapshot()["streams"] == 1)
        for number in range(200):
            if not house.shown.snapshot()["streams"]:
                break
            many = [member(f"digits-{each}", version=f"{number}." + "x" * 250) for each in range(100)]
            house.show(service("digits", *many))
            await house.clock.advance(1.0)
        await until(lambda: house.shown.snapshot()["streams"] == 0)
    assert house.shown._surface.streams._sending == set()


async def test_a_tab_that_closes_frees_its_place(house) -> None:
    async with house.follow("/"):
        await until(lambda: house.shown.snapshot()["streams"] == 1)
    for _ in range(4):
        await house.clock.advance(BEAT)
        await asyncio.sleep(0.02)
    assert house.shown.snapshot()["streams"] == 0


async def test_more_streams_than_there_may_be_are_refused(house, monkeypatch) -> None:
    monkeypatch.setattr(streams, "MOST_STREAMS", 2)
    async with house.follow("/"), house.follow("/calls"):
        answer = await house.get("/stream?at=/events")
        assert answer.status == 503
        assert answer.json["error"].startswith("there are 2 open pages already")


async def test_pages_beyond_the_most_are_served_and_followed_all_the_same(house, monkeypatch) -> None:
    monkeypatch.setattr(live, "MOST", 2)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(house.follow(f"/instances?q={each}")) for each in ("d", "di", "dig")]
        for stream in opened:
            await stream.parts()
        assert (await house.get("/instances?q=digi")).status == 200
        house.show(WORSE)
        await house.clock.advance(1.0)
        for stream in opened:
            assert "critical" in str(await stream.parts())


async def test_an_address_that_names_a_hundred_instances_has_its_stream(house) -> None:
    many = [member(f"{number:03}-" + "é<" * 50 + "x" * 96) for number in range(100)]
    house.show(service("digits", *many))
    at = "/confirm?kind=drain" + "".join(f"&id=digits/{quote(each.id)}" for each in many)
    text = (await house.get(at)).text
    assert "100" in text
    stream_at = text.partition('data-stream="')[2].partition('"')[0].replace("&amp;", "&")
    version = text.partition('data-version="')[2].partition('"')[0]
    assert len(stream_at) > 64 * 1024
    async with house.follow_raw(f"{stream_at}&v={version}") as stream:
        assert stream.status == 200
        assert set(await stream.next()) == {"now", "heard", "live"}


@pytest.mark.parametrize(
    ("at", "status"),
    [("/nothing", 404), ("http://[", 400), ("//evil/x", 404), ("/instances?health=odd", 400), ("/stream", 404)],
)
async def test_an_address_without_a_page_has_no_stream(house, at, status) -> None:
    answer = await house.get(f"/stream?at={quote(at, safe='')}")
    assert (answer.status, answer.json["status"]) == (status, status)
    assert answer.json["error"]
    assert house.shown.snapshot()["streams"] == 0


async def test_asking_for_the_head_of_a_stream_opens_none(house) -> None:
    assert (await house.ask("HEAD", "/stream?at=/")).status == 404


async def test_a_stream_that_breaks_ends_and_is_logged_and_the_others_go_on(house, monkeypatch, caplog) -> None:
    async with house.follow("/about") as other, house.follow("/calls") as stream:
        await stream.rest()
        await other.rest()
        page = next(each for each in house.shown._surface.live._pages.values() if each.page.here == "/calls")
        monkeypatch.setattr(page, "encoded", lambda known: 1 / 0)
        await house.clock.advance(BEAT)
        assert await stream.next() is None
        assert (await other.next())["live"] is True
    assert [each for each in caplog.messages if "broke" in each] == ["the stream of /calls broke"]


async def test_the_end_ends_every_stream_cleanly_and_soon(tmp_path) -> None:
    from registry.timing import SystemClock

    house = House(tmp_path, clock=SystemClock())
    house.show(ONE)
    async with AsyncExitStack() as stack:
        async with house.open():
            opened = [await stack.enter_async_context(house.follow("/instances", packed=True)) for _ in range(20)]
            for stream in opened:
                await stream.next()
            began = time.monotonic()
        assert time.monotonic() - began < 2.5
        for stream in opened:
            assert (await stream.rest())[-1] is None
            assert stream._unpack.eof


async def test_a_reader_that_takes_nothing_holds_nobody_up_at_the_end(tmp_path) -> None:
    house = House(tmp_path)
    house.show(service("digits", *[member(f"digits-{each}", version="x" * 250) for each in range(100)]))
    with socket.socket() as reader:
        async with house.open():
            host, _, port = house.shown.address.partition(":")
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(reader, (host, int(port)))
            request = b"GET /stream?at=%2Finstances HTTP/1.1\r\nHost: x\r\n\r\n"
            await loop.sock_sendall(reader, request)
            surface = house.shown._surface
            for number in range(200):
                house.show(service("digits", *[member(f"d-{each}", version=f"{number}" * 80) for each in range(100)]))
                await house.clock.advance(1.0)
                if surface.streams._sending:
                    break
            assert surface.streams._sending
            began = time.monotonic()
        assert time.monotonic() - began < 1.5


async def test_those_who_listen_hear_the_newest_event_once_and_how_many_more(house) -> None:
    house.state.journal.add(Event(at=1.0, kind=Kind.GONE, words="before anybody listened"))
    async with house.follow("/about", await version_of(house, "/about")) as stream:
        assert "say" not in await stream.next()
        for words in ("digits-1 is critical", "digits-1 is \u202egnissap"):
            house.state.journal.add(Event(at=2.0, kind=Kind.HEALTH, words=words))
        await house.clock.advance(2 * BEAT)
        said = [each["say"] for each in await stream.rest() if "say" in each]
        assert said == ["digits-1 is \\u202egnissap. And 1 more event."]
        await house.clock.advance(2 * BEAT)
        assert not [each for each in await stream.rest() if "say" in each]
