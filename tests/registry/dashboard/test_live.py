"""Pages that are looked at: what is drawn again, what is sent, what is kept, and what a failure takes along."""

import asyncio
import logging
import zlib

import msgspec
import pytest

from registry.dashboard import live as module
from registry.dashboard.live import KEEP, Live, Squeezed
from registry.dashboard.page import NoSuchPage
from registry.dashboard.render import Part, Renderer
from registry.testing import ManualClock
from tests.registry.dashboard.drawing import roots


class View(msgspec.Struct, frozen=True):
    cells: dict


class Table:
    """A page of one row for each item of the world, a dictionary; None is a row that cannot be drawn."""

    template, name, title = "about.html", "", "Table"

    def __init__(self, here="/table"):
        self.here = here
        self.views = 0

    def view(self, world):
        self.views += 1
        if world is None:
            raise NoSuchPage("it has gone")
        if "fault" in world:
            raise ZeroDivisionError("of a view")
        return View(dict(world))

    def parts(self, view, world):
        return {
            name: Part("parts/notice.html", {} if value is None else {"title": "", "words": value}, value)
            for name, value in view.cells.items()
        }

    def order(self, view):
        return [each for each in view.cells if each.startswith("row:")]


class Drawing(Renderer):
    """Counts what is drawn."""

    def __init__(self):
        super().__init__()
        self.drawn = 0

    def part(self, part):
        self.drawn += 1
        return super().part(part)


class Desk:
    """A ``Live`` over a dictionary."""

    def __init__(self, **world):
        self.world, self.stamp = world, 0
        self.clock, self.renderer = ManualClock(), Drawing()
        self.live = Live(self.renderer, lambda: self.world, lambda: self.stamp, clock=self.clock, epoch="now")

    def set(self, **changes):
        self.world = {**(self.world or {}), **changes}
        self.stamp += 1

    def open(self, page=None):
        found = self.live.page(page or Table())
        self.live.draw(found)
        return found

    def follow(self, page=None):
        found, news = self.open(page), asyncio.Event()
        self.live.follow(found, news)
        return found, news


async def test_only_what_has_another_key_is_drawn_and_sent() -> None:
    desk = Desk(**{"row:a": "1", "row:b": "1"})
    page, news = desk.follow()
    assert (desk.renderer.drawn, news.is_set()) == (2, False)
    before = page.version
    desk.set(**{"row:b": "2"})
    await desk.live.look()
    assert desk.renderer.drawn == 3
    assert news.is_set()
    message = page.message(before)
    assert set(message) == {"v", "parts"}
    assert list(message["parts"]) == ["row:b"]
    assert message["v"] == page.version != before


async def test_nothing_new_is_not_even_looked_at() -> None:
    desk = Desk(a="1")
    page, news = desk.follow()
    await desk.live.look()
    assert page.page.views == 1
    desk.stamp += 1  # something has changed, but nothing of this page
    await desk.live.look()
    assert (page.page.views, desk.renderer.drawn, news.is_set()) == (2, 1, False)
    assert page.message(page.version) is None


async def test_two_who_look_at_one_address_share_the_drawing_and_the_bytes() -> None:
    desk = Desk(a="1")
    (one, _), (other, _) = desk.follow(), desk.follow()
    assert one is other
    before = one.version
    desk.set(a="2")
    await desk.live.look()
    assert desk.renderer.drawn == 2
    assert one.encoded(before) is other.encoded(before)
    assert b'"v":' in one.encoded(before)


async def test_rows_that_come_or_change_places_are_told_as_an_order() -> None:
    desk = Desk(**{"row:a": "1", "row:b": "1"})
    page, _ = desk.follow()
    before = page.version
    desk.world = {"row:b": "1", "row:a": "1"}
    desk.stamp += 1
    await desk.live.look()
    assert page.message(before) == {"v": page.version, "parts": {}, "order": {"ids": ("row:b", "row:a")}}


@pytest.mark.parametrize("known", ["", "now.0.-7", "then.0.1", "<script>"])
async def test_whoever_has_another_version_gets_the_whole_page(known: str) -> None:
    desk = Desk(**{"row:a": "1", "b": "1"})
    page, _ = desk.follow()
    for value in ("2", "3"):
        desk.set(b=value)
        await desk.live.look()
    message = page.message(known)
    assert set(message["parts"]) == {"row:a", "b"}
    assert message["order"] == {"ids": ("row:a",)}


async def test_a_page_that_was_forgotten_takes_no_version_it_had() -> None:
    desk = Desk(a="1")
    had = desk.open().version
    await desk.clock.advance(KEEP + 1)
    await desk.live.look()
    assert desk.live.snapshot() == {"pages": 0, "streams": 0}
    desk.set(a="2")
    again = desk.open()
    assert again.version != had
    assert "2" in again.message(had)["parts"]["a"]


async def test_a_page_that_is_followed_is_kept_and_one_just_left_for_a_while() -> None:
    desk = Desk(a="1")
    page, news = desk.follow()
    await desk.clock.advance(10 * KEEP)
    await desk.live.look()
    assert desk.live.snapshot() == {"pages": 1, "streams": 1}
    desk.live.leave(page, news)
    await desk.live.look()
    assert desk.live.snapshot() == {"pages": 1, "streams": 0}
    await desk.clock.advance(KEEP + 1)
    await desk.live.look()
    assert desk.live.snapshot()["pages"] == 0


async def test_beyond_the_most_pages_those_go_that_nobody_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    desk = Desk(a="1")
    followed = [desk.follow(Table(f"/{number}")) for number in range(4)]
    for number in range(10):
        desk.open(Table(f"/other/{number}"))
    assert desk.live.snapshot()["pages"] == 5  # those that are followed, and the one that was just asked for
    desk.set(a="2")
    await desk.live.look()
    assert all(news.is_set() for _, news in followed)


def test_of_those_that_nobody_follows_the_longest_unseen_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    desk = Desk(a="1")
    first, second = desk.open(Table("/1")), desk.open(Table("/2"))
    assert desk.open(Table("/1")) is first
    desk.open(Table("/3"))
    assert desk.open(Table("/1")) is first
    assert desk.open(Table("/2")) is not second


async def test_the_whole_page_is_said_as_it_is_now() -> None:
    desk = Desk(a="1")
    page, _ = desk.follow()
    before = page.encoded("")
    desk.set(a="2")
    await desk.live.look()
    assert page.encoded("") != before


async def test_a_part_that_fails_says_so_in_its_place_and_takes_nothing_along(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(**{"row:a\"'<": None, "the-caption": None, "b": None, "c": "1"})
    page, news = desk.follow()
    drawn = desk.live.draw(page).parts
    assert drawn["row:a\"'<"].startswith('<tr id="row:a&#34;&#39;&lt;"><td class="empty" colspan="')
    assert drawn["the-caption"].startswith('<caption id="the-caption"')
    assert drawn["b"] == '<p id="b" class="empty">This part cannot be shown: the dashboard&#39;s log says why.</p>'
    assert roots(drawn["row:a\"'<"]) == ["row:a\"'<"]
    assert "1" in drawn["c"]
    assert [each.levelno for each in caplog.records] == [logging.ERROR] * 3
    assert "b of /table cannot be shown" in caplog.messages

    caplog.clear()
    desk.set(c="2")
    await desk.live.look()
    assert news.is_set()
    assert not caplog.records  # once is enough

    desk.set(b="well")
    await desk.live.look()
    assert "well" in desk.live.draw(page).parts["b"]
    desk.set(b=None)
    await desk.live.look()
    assert caplog.messages == ["b of /table cannot be shown"]


async def test_a_page_that_fails_keeps_its_picture_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(a="1")
    bad, sick = desk.follow(Table("/bad\n"))
    _, news = desk.follow(Table("/good"))
    view = bad.page.view
    bad.page.view = lambda world: 1 / 0
    for value in "23":
        desk.set(a=value)
        await desk.live.look()
    assert (news.is_set(), sick.is_set()) == (True, False)
    assert caplog.messages == ["/bad cannot be drawn; who looks at it sees it as it was"]
    bad.page.view = view
    await desk.live.look()
    assert sick.is_set()


async def test_a_page_that_goes_says_so_and_may_come_back() -> None:
    desk = Desk(a="1")
    page, news = desk.follow()
    world, desk.world = desk.world, None
    desk.stamp += 1
    await desk.live.look()
    assert (page.gone, news.is_set()) == ("it has gone", True)
    desk.world = world
    desk.stamp += 1
    assert desk.open() is page
    assert page.gone == ""


async def test_what_lives_round_every_page_is_part_of_it() -> None:
    renderer, clock = Renderer(), ManualClock()
    notice = {"title": "", "words": "all is well"}
    live = Live(
        renderer,
        dict,
        lambda: notice["words"],
        clock=clock,
        epoch="now",
        frame=lambda _: {"notice": Part("parts/notice.html", dict(notice), notice["words"])},
    )
    page = live.page(Table())
    live.draw(page)
    before, news = page.version, asyncio.Event()
    live.follow(page, news)
    notice["words"] = "the registry is away"
    await live.look()
    assert news.is_set()
    assert "the registry is away" in page.message(before)["parts"]["notice"]


def test_every_event_can_be_unpacked_as_soon_as_it_is_there() -> None:
    squeezed, unpack = Squeezed(True), zlib.decompressobj(16 + zlib.MAX_WBITS)
    for words in (b"data: one\n\n", b"data: two\n\n" * 5000):
        assert unpack.decompress(squeezed.add(words)) == words
    unpack.decompress(squeezed.end())
    assert unpack.eof
    plain = Squeezed(False)
    assert (plain.packs, plain.add(b"one"), plain.end()) == (False, b"one", b"")
