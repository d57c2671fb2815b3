"""What changes something takes a POST from a page of this very dashboard, a session, and the session's own secret."""

import asyncio
import io
import re
from urllib.parse import quote

import pytest
from aiohttp import web

from registry.dashboard.access import IDLE
from registry.dashboard.acting import _MOST_FORM
from registry.dashboard.orders import Stage
from tests.registry.dashboard.fleet import many, member, service
from tests.registry.dashboard.house import FORM, OPERATOR, House, until

POSTS = ("/sign-in", "/sign-out", "/theme", "/actions/drain", "/actions/undrain")
WITH_SESSION = ("/sign-out", "/actions/drain", "/actions/undrain")
DRAIN = {"kind": "drain", "id": "digits/digits-0003", "reason": "kernel update"}


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    house.show(many(10))
    async with house.open():
        yield house


def events(house):
    return [each.words for each in house.state.journal.newest(100)]


def nothing_happened(house):
    return house.state.drains.orders() == () and events(house) == []


@pytest.mark.parametrize("path", [*POSTS[1:], "/api/v1/reports"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_than_post_is_refused(house, path, method) -> None:
    answer = await house.ask(method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "http://evil.example",
        "https://{host}",
        "http://{host}.evil.example",
        "http://{host}@evil",
        "{host}",
    ],
)
async def test_what_comes_from_no_page_of_ours_is_refused(house, path, origin) -> None:
    await house.sign_in()
    origin = origin and origin.format(host=house.shown.address)
    form = {**DRAIN, "csrf": house.csrf, "token": OPERATOR, "name": "eve", "theme": "dark"}
    answer = await house.post(path, form, origin=origin)
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers
    assert nothing_happened(house)
    assert house.shown._surface._acting._access.session(house.cookie) is not None


@pytest.mark.parametrize("path", WITH_SESSION)
@pytest.mark.parametrize("csrf", ["", "wrong", "other", "\ud800", None])
async def test_a_form_without_this_sessions_secret_is_refused(house, path, csrf) -> None:
    await house.sign_in("eve")
    other = house.csrf
    await house.sign_in("ada")
    form = {**DRAIN} if csrf is None else {**DRAIN, "csrf": other if csrf == "other" else csrf.encode(errors="replace")}
    answer = await house.post(path, form)
    assert answer.status == 403
    assert nothing_happened(house)


@pytest.mark.parametrize("path", WITH_SESSION)
async def test_without_a_session_that_lives_it_is_refused(house, path) -> None:
    cookie = await house.sign_in()
    good = {**DRAIN, "csrf": house.csrf}
    for bad in ("", "forged", cookie[:-1], cookie.swapcase(), '"' * 50, "é" * 5):
        house.cookie = bad
        answer = await house.post(path, good)
        assert answer.status == 401, bad
        assert 'href="/sign-in' in answer.text
    house.cookie = cookie
    await house.clock.advance(IDLE)
    assert (await house.post(path, good)).status == 401
    await house.sign_in()
    good = {**DRAIN, "csrf": house.csrf}
    assert (await house.post("/sign-out", good)).status == 303
    assert (await house.post(path, good)).status == 401
    assert nothing_happened(house)


@pytest.mark.parametrize("path", [each for each in POSTS if each != "/theme"])
async def test_without_operator_tokens_nobody_acts(tmp_path, path) -> None:
    house = House(tmp_path, tokens=False)
    house.show(many(10))
    async with house.open():
        answer = await house.post(path, {**DRAIN, "token": "", "name": "eve", "csrf": ""})
        assert answer.status == 403
        assert "read-only" in answer.text
        assert nothing_happened(house)
        assert "read-only" in (await house.get("/")).text
        assert "<form" not in (await house.get("/sign-in")).text.partition("<main")[2].partition("</main>")[0]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data; boundary=x", "text/plain", "", FORM + "; charset=utf-7"]
)
async def test_what_is_no_form_is_refused(house, path, kind) -> None:
    await house.sign_in()
    data = f"csrf={house.csrf}".encode()
    answer = await house.post(path, data=data, headers={"Content-Type": kind})
    assert answer.status == 415
    assert nothing_happened(house)


@pytest.mark.parametrize("path", POSTS)
async def test_a_form_that_is_too_large_is_refused_with_its_length_told_or_not(house, path) -> None:
    await house.sign_in()
    large = b"csrf=" + house.csrf.encode() + b"&reason=" + b"x" * _MOST_FORM

    async def pieces():
        yield large

    told = await house.post(path, data=io.BytesIO(large))
    untold = await house.post(path, data=pieces())
    assert (told.status, untold.status) == (413, 413)
    assert nothing_happened(house)


async def test_the_cookie_is_for_this_site_alone_and_no_scripts(house) -> None:
    answer = await house.post("/sign-in", {"token": OPERATOR, "name": "ada"})
    first, *flags = answer.headers["Set-Cookie"].split("; ")
    assert re.fullmatch(r"twostep_session=[\w-]{43}", first)
    assert set(flags) == {"Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=43200"}
    theme = await house.post("/theme", {"theme": "dark"})
    assert "HttpOnly" in theme.headers["Set-Cookie"]
    assert "SameSite=Strict" in theme.headers["Set-Cookie"]


async def test_behind_a_proxy_the_scheme_is_the_one_it_tells(tmp_path) -> None:
    house = House(tmp_path, proxied=True)
    async with house.open():
        form = {"token": OPERATOR, "name": "ada"}
        told = {"X-Forwarded-Proto": "https"}
        origin = house.url.replace("http:", "https:")
        assert (await house.post("/sign-in", form, headers=told)).status == 403
        answer = await house.post("/sign-in", form, headers=told, origin=origin)
        assert (answer.status, answer.headers["Set-Cookie"].endswith("; Secure")) == (303, True)
        assert (await house.post("/sign-in", form, headers={"X-Forwarded-Proto": "evil"})).status == 303


async def test_nobody_who_is_no_proxy_is_believed_about_the_scheme(house) -> None:
    told = {"X-Forwarded-Proto": "https"}
    origin = house.url.replace("http:", "https:")
    assert (await house.post("/theme", {}, headers=told, origin=origin)).status == 403


@pytest.mark.parametrize(
    "back",
    [
        "//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example", "/\t/evil.example",
        "/\r\nSet-Cookie: a=b", "/\n/evil.example", "javascript:alert(1)", "", " //evil.example", "/a\\..\\b", "/\x00",
        "/\u202e", "evil", "http:evil.example",
    ],
)  # fmt: skip
async def test_the_way_back_stays_here(house, back) -> None:
    for path, form in (("/theme", {"theme": "dark"}), ("/sign-in", {"token": OPERATOR, "name": "ada"})):
        answer = await house.post(path, {**form, "back": back})
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        assert "a" not in answer.headers.getall("Set-Cookie")[0].partition("=")[0].split()
    asked = await house.get(f"/sign-in?back={quote(back)}")
    assert 'name="back" value="/"' in asked.text
    assert "evil" not in asked.text.partition("<main")[2]


async def test_the_way_back_is_kept_whole(house) -> None:
    back = "/instances?q=a&b=%3Cx%3E#top"
    answer = await house.post("/sign-in", {"token": OPERATOR, "name": "ada", "back": back})
    assert answer.headers["Location"] == back


@pytest.mark.parametrize("came", ["http://evil.example/x", "http://{host}\\@evil/", "http://[", "", "//evil/"])
async def test_a_refusal_leads_back_to_nowhere_else(house, came) -> None:
    answer = await house.get("/nothing", Referer=came.format(host=house.shown.address))
    assert answer.status == 404
    assert "evil" not in answer.text.partition("<main")[2]
    assert 'href="/">To the overview' in answer.text


async def test_wrong_tokens_are_refused_and_after_too_many_everybody_waits(house) -> None:
    for _ in range(10):
        answer = await house.post("/sign-in", {"token": "wr0ng-guess", "name": "ada", "back": "/calls"})
        assert answer.status == 401
        assert "no operator token" in answer.text
        assert "wr0ng-guess" not in answer.text
        assert 'value="/calls"' in answer.text
    answer = await house.post("/sign-in", {"token": OPERATOR, "name": "ada"})
    assert answer.status == 429
    await house.clock.advance(61)
    assert (await house.post("/sign-in", {"token": OPERATOR, "name": "ada"})).status == 303


async def test_who_is_signed_in_is_named_and_signs_out(house) -> None:
    await house.sign_in("ada <b>")
    text = (await house.get("/")).text
    assert "operator ada &lt;b&gt;" in text
    assert f'name="csrf" value="{house.csrf}"' in text
    answer = await house.post("/sign-out", {"csrf": house.csrf})
    assert answer.status == 303
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert "operator ada" not in (await house.get("/")).text


@pytest.mark.parametrize("name", ["dark", "evil", "", "\r\nX: y"])
async def test_a_theme_is_remembered_and_only_one_there_is(house, name) -> None:
    answer = await house.post("/theme", {"theme": name, "back": "/calls"})
    assert answer.headers["Location"] == "/calls"
    kept = answer.headers["Set-Cookie"].partition("=")[2].partition(";")[0]
    assert kept == ("dark" if name == "dark" else "auto")
    page = await house.get("/", Cookie="theme=dark")
    assert 'data-theme="dark"' in page.text
    assert 'data-theme="auto"' in (await house.get("/", Cookie='theme="><script>')).text


async def test_an_order_runs_at_the_node_and_events_say_who_and_why(house) -> None:
    asked = []

    async def answer(request):
        asked.append((request.method, request.path, request.headers["Authorization"], await request.text()))
        return web.json_response({"state": "draining", "refusing": True, "held": {"requests": 0}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port = runner.addresses[0][1]
        ten = [member(f"digits-{each:04}", address="127.0.0.1", port=port) for each in range(10)]
        house.show(service("digits", *ten))
        await house.sign_in("ada")
        answer = await house.post("/actions/drain", {**DRAIN, "csrf": house.csrf})
        assert answer.status == 303, answer.text
        where = answer.headers["Location"]
        assert where == "/orders/1"
        await until(lambda: house.state.drains.order("1").ended)
        assert [each.stage for each in house.state.drains.order("1").steps.values()] == [Stage.DONE]
        assert asked == [("POST", "/admin/drain", "Bearer admin-t0ken-72", '{"reason":"kernel update"}')]
        assert "digits-0003" in (await house.get(where)).text
        seen = house.state.journal.newest(10)
        assert [(each.who, each.why, each.instance) for each in seen] == [("ada", "kernel update", "digits-0003")] * 2
        assert events(house) == ["digits-0003 is drained", "ada drains digits-0003: kernel update"]
    finally:
        await runner.cleanup()


async def test_an_order_that_may_not_be_goes_back_to_its_form_and_says_why(house) -> None:
    await house.sign_in()
    answer = await house.post("/actions/drain", {**DRAIN, "reason": "", "csrf": house.csrf})
    assert answer.status == 303
    where = answer.headers["Location"]
    assert where.startswith("/confirm?")
    assert house.csrf not in where
    page = await house.get(where)
    assert "a reason is required" in page.text
    assert house.state.drains.orders() == ()


async def test_a_form_of_one_order_gives_no_other(house) -> None:
    await house.sign_in()
    answer = await house.post("/actions/undrain", {**DRAIN, "csrf": house.csrf})
    assert "another+order" in answer.headers["Location"]
    assert house.state.drains.orders() == ()


async def test_two_who_sign_in_at_once_are_two(house) -> None:
    answers = await asyncio.gather(
        *(house.post("/sign-in", {"token": OPERATOR, "name": name}) for name in ("ada", "bob"))
    )
    assert len({each.headers["Set-Cookie"] for each in answers}) == 2
