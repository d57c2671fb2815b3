"""The dashboard over HTTP as strangers meet it: nothing hostile gets through, nothing secret gets out."""

import asyncio
import csv
import io
import logging
import re
from html import unescape
from urllib.parse import quote, urlencode

import pytest

from registry.dashboard.model import Event, Kind
from registry.dashboard.pages.overview import Overview
from registry.dashboard.pages.service import ServicePage
from registry.dashboard.reply import POLICY
from tests.registry.dashboard.fleet import check, load, many, member, service
from tests.registry.dashboard.house import ADMIN, OPERATOR, REPORTS, TOKENS, Elements, House

EVIL = "\"'><script>alert('x')</script><img src=x onerror=alert(2)>=cmd|' /C calc'!A0"
EVIL += "\u202egnp.exe\u2066\u200f\x00\x1b[31m\r\n{{7*7}}"
HUGE = EVIL + "A" * 1_000_000
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\x00\x1b]")
STATIC = ("app.css", "app.js", "stream.js", "morph.js", "keys.js", "select.js", "shapes.svg", "icon.svg")
PATHS = (
    "/", "/services/digits", "/instances", "/instances/digits/digits-0001", "/calls", "/events", "/about",
    "/lookup?service=digits", "/confirm?kind=drain&id=digits/digits-0001", "/sign-in", "/nothing",
    "/instances?health=odd", "/api/v1/overview", "/api/v1/instances", "/api/v1/nothing", "/instances.csv",
    "/events.csv", "/healthz", "/static/app.css", "/static/nothing", "/actions/drain", "/stream?at=/nothing",
)  # fmt: skip


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    house.show(many(3))
    async with house.open():
        yield house


def haunt(house, words, huge, mark):
    """Put ``words`` into every field that a node, a check, a client or an operator controls, ``huge`` into some."""
    name = f"svc-{mark}{words}"[:200]
    everything = {
        "node": words, "zone": words, "version": huge[:512], "tags": (words, huge), "address": words[:60],
        "meta": {words: huge, "scheme": words, huge[:300]: words, "load": words},
    }  # fmt: skip
    reports = [
        check("critical", huge, check_id=words, name=huge, notes=words),
        check("critical", words, check_id="_service_maintenance:x", name=words, notes=huge),
    ]
    members = [
        member(f"id-{mark}{words}{number}"[:220], name, health=health, checks=reports, **everything)
        for number, health in enumerate(("critical", "warning", "draining", "passing"))
    ]
    house.show(service(name, *members), error=words, live=False)
    for each in members:
        house.state.loads._loads[name, each.id] = load(wait_ms=5.0, queue=1.0, error=words[:120])
    clean = f"{mark}{words}".encode(errors="replace").decode()[:200]
    house.report(
        {"instance": members[0].id, "ok": 3, "failed": 2, "state": "ejected", "latencies": [[8.0, 5]]},
        service=name, client=clean, policy=clean, latencies=[[8.0, 5]], calls=5,
    )  # fmt: skip
    for kind in Kind:
        house.state.journal.add(
            Event(
                at=house.clock.time(), kind=kind, words=huge, service=name, instance=members[0].id,
                health="critical", who=words, why=huge,
            )
        )  # fmt: skip
    house.state.drains.start("undrain", service(name, *members), [each.id for each in members], reason=words, who=words)
    return name, [each.id for each in members]


def addresses(name, ids):
    segment, one = quote(name, safe=""), quote(ids[0], safe="")
    pair = urlencode({"id": f"{name}/{ids[0]}"})
    return {
        "overview": "/",
        "service": f"/services/{segment}",
        "instances": "/instances",
        "filtered": "/instances?" + urlencode({"q": name, "zone": name, "version": name, "service": name}),
        "instance": f"/instances/{segment}/{one}",
        "calls": f"/calls?service={segment}",
        "events": "/events",
        "asked": "/events?" + urlencode({"q": name, "service": name, "instance": ids[0]}),
        "lookup": f"/lookup?service={segment}&" + urlencode({"zone": name, "tag": name, "version": name}),
        "confirm": f"/confirm?kind=drain&{pair}&" + urlencode({"reason": name, "typed": name, "refused": name}),
        "order": "/orders/1",
        "about": "/about",
        "sign-in": "/sign-in?back=" + quote(f"/instances?q={name}"),
        "nothing": f"/{segment}",
        "no service": f"/services/{segment}x",
        "no instance": f"/instances/{segment}/{one}x",
        "bad": f"/instances?health={segment}",
    }


async def test_whatever_others_write_is_text_on_every_page(tmp_path) -> None:
    harmless = House(tmp_path, cluster="plain")
    hostile = House(tmp_path, cluster=HUGE)
    good = haunt(harmless, "plain words", "plain words " * 50, "a")
    bad = haunt(hostile, EVIL, HUGE, "a")
    async with harmless.open(), hostile.open():
        await harmless.sign_in("plain")
        await hostile.sign_in(EVIL.partition("\u202e")[0][:60])
        for page, path in addresses(*bad).items():
            plain = await harmless.get(addresses(*good)[page])
            answer = await hostile.get(path)
            assert answer.status == plain.status, page
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            found = Elements(answer.text)
            strange = found.kinds - Elements(plain.text).kinds
            assert not strange, (page, strange)
            assert not BIDI.search(answer.text), page
            assert not BIDI.search(unescape(answer.text)), page
            scripts = [each for each in found.attributes if each[0] == "script"]
            assert scripts == [("script", "type", "module"), ("script", "src", "/static/app.js")], page
            assert not [each for each in found.attributes if each[1].startswith("on") or each[1] == "style"], page
            for tag, name, value in found.attributes:
                if name in ("href", "src", "action"):
                    assert re.match(r"/(?![/\\])|#", value), (page, tag, value[:100])
            assert "49" not in re.findall(r"\{\{7\*7\}\}|\b49\b", answer.text), page
            assert len(answer.text) < 250_000, (page, len(answer.text))


async def test_whatever_others_write_is_bounded_and_text_in_json_and_streams(tmp_path) -> None:
    house = House(tmp_path)
    name, ids = haunt(house, EVIL, HUGE, "a")
    async with house.open():
        for page, path in addresses(name, ids).items():
            if page == "sign-in":
                continue
            answer = await house.get("/api/v1" + path)
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert isinstance(answer.json, dict), page
            assert len(answer.text) < 300_000, (page, len(answer.text))
            if answer.status == 200:
                async with house.follow(path) as stream:
                    message = await stream.next()
                    assert len(str(message)) < 300_000, page
                    for part in message["parts"].values():
                        assert not BIDI.search(unescape(part)), page
                        assert "<script" not in part, page
                        assert "<img" not in part, page
            else:
                assert (await house.get(f"/stream?at={quote(path, safe='')}")).status == answer.status


async def test_files_to_keep_hold_no_formula(tmp_path) -> None:
    house = House(tmp_path)
    for mark in ("=1+1 ", "+1", "-1", "@SUM(1) ", "\t=1", "\r=1"):
        house.state.journal.add(
            Event(at=1.0, kind=Kind.ACTION, words=mark, service=mark, instance=mark, who=mark, why=mark)
        )
    evil = {"zone": "@evil", "version": "=cmd|' /C calc'!A0", "node": "+evil", "tags": ("=x",)}
    house.show(service("=evil", member("-id", "=evil", **evil)))
    async with house.open():
        for path in ("/instances.csv", "/events.csv"):
            answer = await house.get(path)
            assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{path[1:]}"'
            rows = list(csv.reader(io.StringIO(answer.text)))
            assert len(rows) > 1
            for cell in (cell for row in rows for cell in row):
                assert not re.match(r"[=+@\t\r]|-[^0-9]", cell), cell


async def test_what_is_huge_is_bounded_in_files(tmp_path) -> None:
    house = House(tmp_path)
    haunt(house, EVIL, HUGE, "a")
    async with house.open():
        for path in ("/instances.csv", "/events.csv"):
            assert 1000 < len((await house.get(path)).text) < 100_000, path


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_carries_the_same_strict_headers(house, path) -> None:
    answer = await house.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert policy == POLICY
    assert policy.startswith("default-src 'self'; ")
    assert not re.search(r"unsafe|data:|blob:|https?:|\*|nonce|sha256", policy)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] in ("no-store", "no-cache")
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_stream_carries_them_too(house) -> None:
    async with house.follow("/") as stream:
        assert stream.headers["Content-Security-Policy"] == POLICY


async def test_static_files_are_kept_by_their_content(house) -> None:
    for name in STATIC:
        answer = await house.get(f"/static/{name}")
        assert answer.status == 200
        again = await house.get(f"/static/{name}", **{"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.text) == (304, "")
        assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", re.sub(r"http://www\.w3\.org/\S+", "", answer.text))
    assert (await house.get("/static/..%2fhttp.py")).status == 404
    assert (await house.get("/static/base.html")).status == 404


@pytest.mark.parametrize("path", ["/", "/services/digits", "/instances", "/calls", "/events", "/about", "/lookup"])
async def test_every_page_has_a_twin_in_json(house, path) -> None:
    page = await house.get(path)
    twin = re.search(r'<a href="([^"]+)">This page as JSON', page.text)[1]
    answer = await house.get(unescape(twin))
    assert answer.status == 200
    assert isinstance(answer.json, dict)


async def test_a_program_gets_its_refusal_as_json(house) -> None:
    answer = await house.get("/api/v1/services/nothing")
    assert answer.status == 404
    assert set(answer.json) == {"error", "status"}
    assert (await house.get("/services/nothing")).headers["Content-Type"].startswith("text/html")


async def test_a_fault_is_a_page_without_its_traceback_and_a_line_in_the_log(house, monkeypatch, caplog) -> None:
    monkeypatch.setattr(Overview, "view", lambda self, world: {}[f"secret {TOKENS}"])
    page, twin = await house.get("/"), await house.get("/api/v1/overview")
    assert (page.status, twin.status) == (500, 500)
    for answer in (page, twin):
        assert "its log says why" in answer.text
        assert not re.search("Traceback|KeyError|secret|\\.py", answer.text)
    assert [each.levelno for each in caplog.records] == [logging.ERROR] * 2
    assert caplog.messages[0] == "GET / failed"
    assert (await house.get("/instances")).status == 200


async def test_one_part_that_fails_leaves_the_page(house, monkeypatch, caplog) -> None:
    parts = ServicePage.parts

    def broken(self, view, world):
        found = dict(parts(self, view, world))
        found["service-histogram"] = found["service-histogram"]._replace(variables={}, key="broken")
        return found

    monkeypatch.setattr(ServicePage, "parts", broken)
    answer = await house.get("/services/digits")
    assert answer.status == 200
    assert '<p id="service-histogram" class="empty">This part cannot be shown' in answer.text
    assert "digits-0002" in answer.text
    assert caplog.messages == ["service-histogram of /services/digits cannot be shown"]


async def test_an_address_cannot_write_a_line_of_the_log(house, monkeypatch, caplog) -> None:
    def fail(self, world):
        raise ZeroDivisionError

    monkeypatch.setattr(ServicePage, "view", fail)
    await house.get("/services/digits%0Aroot%20logged%20in%1b%5b31m")
    assert len(caplog.messages) == 1
    assert caplog.messages[0].isprintable()


@pytest.mark.parametrize(
    "path",
    ["/instances?q=%ED%A0%80", "/services/%ED%A0%80", "/%FF%FE", "/instances?page=99999999999999999999&sort=%00",
     "/lookup?service=%ff&tag=%ED%B0%80", "/events?before=-1&kind=", "/confirm?id=%ED%A0%80", "/stream?at=%ED%A0%80",
     "/sign-in?back=/%ED%A0%80", "/api/v1/instances?q=%ED%A0%80", "/api/v1//", "//evil/x",
     "/instances.csv?q=%ED%A0%80"],
)  # fmt: skip
async def test_what_cannot_be_read_is_never_a_fault(house, path, caplog) -> None:
    answer = await house.get(path)
    assert answer.status in (200, 400, 404)
    assert not caplog.records


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b'{"client":"\\ud800","service":"x","period":5}', 400),
        (b"[" * 100_000, 400),
        (b'{"client":"ada","service":"digits","period":5}', 204),
        (b"x" * (512 * 1024 + 1), 413),
    ],
)
async def test_a_report_is_taken_or_refused_in_words(house, body, status) -> None:
    headers = {"Authorization": f"Bearer {REPORTS}", "Content-Type": "application/json"}
    answer = await house.ask("POST", "/api/v1/reports", data=body, headers=headers)
    assert answer.status == status
    assert len(answer.text) < 500
    if status != 204:
        assert answer.json["error"]


async def test_a_report_without_its_token_is_refused(house) -> None:
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {REPORTS}"}):
        answer = await house.ask("POST", "/api/v1/reports", data=b"{}", headers=header)
        assert answer.status == 401
        assert "TWOSTEP_DASHBOARD_TOKEN_FILE" in answer.json["error"]


async def test_reports_that_come_too_often_are_refused(house) -> None:
    headers = {"Authorization": f"Bearer {REPORTS}"}
    body = b'{"client":"ada","service":"digits","period":5}'
    answers = [await house.ask("POST", "/api/v1/reports", data=body, headers=headers) for _ in range(200)]
    assert {each.status for each in answers} == {204, 429}


async def test_no_token_gets_out(house, caplog, monkeypatch) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    await house.sign_in()
    own = {house.cookie}
    house.show(many(30), live=False, heard=1.0, error="refused")
    for path in PATHS:
        for prefix in ("", "/api/v1"):
            answer = await house.get(prefix + path)
            said.append(f"{answer.headers} {answer.text}")
    for token in (*TOKENS, house.cookie):
        bearer = {"Authorization": f"Bearer {token}"}
        said.append((await house.ask("POST", "/api/v1/reports", data=b"{", headers=bearer)).text)
        said.append((await house.post("/sign-in", {"token": token + "x", "name": "ada"})).text)
        said.append((await house.post("/sign-in", {"token": token, "name": "\n"})).text)
        said.append((await house.get("/nothing", **bearer)).text)
    drain = {"kind": "drain", "id": "digits/digits-0003", "reason": "a test", "csrf": house.csrf}
    await house.post("/actions/drain", drain)
    async with asyncio.timeout(10):
        while not house.state.drains.order("1").ended:
            await house.clock.advance(5.0)
            await asyncio.sleep(0.01)
    said.append((await house.get("/orders/1")).text + (await house.get("/events.csv")).text)
    monkeypatch.setattr(Overview, "view", lambda self, world: 1 / 0)
    said.append((await house.get("/")).text)
    async with house.follow("/instances") as stream:
        await stream.rest()
        said.append(stream.raw.decode())
    whole = "\n".join([*said, caplog.text, repr(house.state.world()), repr(house.shown._surface._acting._access)])
    assert "digits-0003" in whole
    for token in (*TOKENS, *own):
        assert token not in whole.replace(f"twostep_session={house.cookie}", "")
    assert OPERATOR not in str(house.shown.snapshot())
    assert ADMIN not in repr(house.state.drains.__dict__)


async def test_it_answers_that_it_is_there(house) -> None:
    answer = await house.get("/healthz")
    assert (answer.status, answer.text) == (200, "ok\n")


async def test_pages_are_packed_where_the_browser_takes_it(house) -> None:
    answer = await house.get("/instances", **{"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"


async def test_a_page_at_first_when_the_registry_has_not_answered(tmp_path) -> None:
    house = House(tmp_path)
    house.show(live=False, heard=False, error="connection refused")
    async with house.open():
        for path in ("/", "/instances", "/calls", "/about"):
            text = (await house.get(path)).text
            assert "no data yet" in text
            assert "The registry has not answered yet." in text
            assert "connection refused" in text


async def test_data_that_are_old_say_so_though_the_registry_counts_as_live(house) -> None:
    await house.clock.advance(11.0)
    text = (await house.get("/instances")).text
    assert 'class="fresh old"' in text
    assert "11 s old" in text


async def test_how_old_the_data_are_is_said_anew_on_every_page(house) -> None:
    assert "live, 0 s old" in (await house.get("/instances")).text
    await house.clock.advance(3.0)
    assert "live, 3 s old" in (await house.get("/instances")).text
