"""Who may act: sign-in, sessions, and what of a request has to be right."""

import msgspec
import pytest

from registry.dashboard.access import Access, Facts, Refused, cookie
from registry.testing import ManualClock
from registry.token import Tokens

TOKEN = "c0ffee-token"  # no secret of anything


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "operators"
    path.write_text(TOKEN)
    return Tokens(path)


@pytest.fixture
def access(tokens, clock):
    return Access(tokens, clock=clock)


def facts(session=None, **changes):
    given = Facts(
        method="POST",
        scheme="http",
        host="127.0.0.1:8900",
        origin="http://127.0.0.1:8900",
        cookie=None if session is None else session.cookie,
        csrf=None if session is None else session.csrf,
    )
    return msgspec.structs.replace(given, **changes)


def refusal(call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.status, caught.value.sentence


def test_who_signs_in_has_a_session_and_may_act(access):
    session = access.sign_in(TOKEN, " ada ")
    assert session.name == "ada"
    assert access.session(session.cookie) is session
    assert access.check_action(facts(session)) is session


def test_a_wrong_token_gives_no_session(access):
    assert access.sign_in("wrong", "ada") is None
    assert access.sign_in("", "ada") is None


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\x1b[2J", "a\u202eb"])
def test_a_name_has_to_be_printable_and_short(access, name):
    assert refusal(access.sign_in, TOKEN, name)[0] == 400


async def test_ten_failures_within_a_minute_close_the_door_for_a_while(access, clock):
    for _ in range(10):
        assert access.sign_in("wrong", "eve") is None
        await clock.advance(1)
    assert refusal(access.sign_in, TOKEN, "ada") == (429, "too many attempts; wait a minute")
    await clock.advance(50)
    assert access.sign_in(TOKEN, "ada") is not None


def test_a_forged_cookie_is_nobody(access):
    session = access.sign_in(TOKEN, "ada")
    assert access.session(None) is None
    assert access.session("") is None
    assert access.session(session.cookie[:-1]) is None
    assert access.session("\ud800é") is None


async def test_a_session_ends_when_idle_for_an_hour(access, clock):
    session = access.sign_in(TOKEN, "ada")
    await clock.advance(3599)
    assert access.session(session.cookie) is session
    await clock.advance(3599)
    assert access.session(session.cookie) is session
    await clock.advance(3600)
    assert access.session(session.cookie) is None


async def test_a_session_ends_after_twelve_hours_of_use(access, clock):
    session = access.sign_in(TOKEN, "ada")
    for _ in range(23):
        await clock.advance(1800)
        assert access.session(session.cookie) is session
    await clock.advance(1800)
    assert access.session(session.cookie) is None


def test_signing_out_ends_the_session(access):
    session = access.sign_in(TOKEN, "ada")
    access.sign_out(None)
    access.sign_out("unknown")
    assert access.session(session.cookie) is session
    access.sign_out(session.cookie)
    assert access.session(session.cookie) is None


def test_beyond_a_thousand_sessions_the_longest_idle_one_goes(access):
    first, second = (access.sign_in(TOKEN, "ada") for _ in range(2))
    for _ in range(998):
        access.sign_in(TOKEN, "bob")
    assert access.session(first.cookie) is first  # in use again, so the second is the idle one now
    access.sign_in(TOKEN, "bob")
    assert access.session(first.cookie) is first
    assert access.session(second.cookie) is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "post"])
def test_an_action_is_a_post(access, method):
    session = access.sign_in(TOKEN, "ada")
    assert refusal(access.check_action, facts(session, method=method))[0] == 405


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": None},
        {"origin": ""},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "https://127.0.0.1:8900"},
        {"origin": "http://127.0.0.1:8901"},
        {"origin": "http://127.0.0.1:8900.evil.example"},
        {"host": None},
        {"host": "", "origin": "http://"},
        {"scheme": "https"},
    ],
)
def test_an_action_from_another_origin_is_refused_and_so_is_a_sign_in(access, changes):
    session = access.sign_in(TOKEN, "ada")
    assert refusal(access.check_action, facts(session, **changes))[0] == 403
    assert refusal(access.check_sign_in, facts(**changes))[0] == 403


def test_a_sign_in_needs_no_session(access):
    access.check_sign_in(facts())
    assert refusal(access.check_action, facts()) == (401, "sign in first")


@pytest.mark.parametrize("csrf", [None, "", "wrong", "é\ud800"])
def test_an_action_without_the_secret_of_its_session_is_refused(access, csrf):
    session = access.sign_in(TOKEN, "ada")
    assert refusal(access.check_action, facts(session, csrf=csrf))[0] == 403


def test_the_secret_of_another_session_is_none(access):
    ada, bob = access.sign_in(TOKEN, "ada"), access.sign_in(TOKEN, "bob")
    assert refusal(access.check_action, facts(ada, csrf=bob.csrf))[0] == 403


def test_without_operator_tokens_nobody_acts(clock, access):
    closed = Access(None, clock=clock)
    assert closed.read_only
    assert not access.read_only
    told = (403, "this dashboard is read-only: start it with --operator-token-file")
    assert refusal(closed.sign_in, TOKEN, "ada") == told
    assert refusal(closed.check_sign_in, facts()) == told
    assert refusal(closed.check_action, facts()) == told


def test_the_cookie_is_for_this_site_and_no_script():
    plain = cookie("abc", secure=False)
    assert plain == "twostep_session=abc; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"
    assert cookie("abc", secure=True) == plain + "; Secure"
    assert "Max-Age=0" in cookie("", secure=True)


def test_the_secrets_of_a_session_are_in_no_repr(access):
    session = access.sign_in(TOKEN, "ada")
    assert session.cookie not in repr(session)
    assert session.csrf not in repr(session)
    assert session.cookie != session.csrf


def test_reports_need_a_token_only_where_there_is_one(tokens, clock):
    assert Access(None, clock=clock).bearer_ok(None)
    guarded = Access(None, clock=clock, reports=tokens)
    assert guarded.bearer_ok(f"Bearer {TOKEN}")
    assert guarded.bearer_ok(f"bearer  {TOKEN} ")
    for header in (None, "", "Bearer", f"Basic {TOKEN}", TOKEN, "Bearer wrong"):
        assert not guarded.bearer_ok(header)
