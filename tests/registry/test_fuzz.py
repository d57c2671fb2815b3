"""Whatever a server answers, a watch keeps its last good list, counts one error, asks at most twice in a second, and
goes on with the next good answer.

The whole Consul directory runs, but for its sockets: answers go in where aiohttp would hand them over.
"""

import asyncio
import json
import random

import aiohttp
import pytest
from consul.base import Response
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from registry.consul import http as consulhttp
from registry.consul.codec import decode_in_steps
from registry.consul.directory import ConsulDirectory
from registry.consul.settings import ConsulSettings
from registry.errors import InvalidAnswer
from registry.testing import ManualClock

HEADERS = {"X-Consul-Index": "40", "X-Consul-LastContact": "0", "X-Consul-KnownLeader": "true"}


def entry(number):
    return {
        "Node": {"ID": "f0", "Node": f"n{number}", "Address": "10.0.0.1", "Datacenter": "dc1", "Meta": None},
        "Service": {
            "ID": f"digits-{number}", "Service": "digits", "Tags": ["t"], "Address": "", "Meta": {"zone": "a"},
            "Port": 9000 + number, "Weights": {"Passing": 10, "Warning": 1}, "Proxy": {"Mode": "", "Expose": {}},
        },
        "Checks": [{"Node": f"n{number}", "CheckID": "serfHealth", "Status": "passing", "Output": "alive"}],
    }  # fmt: skip


LIST = [entry(number) for number in range(4)]
GOOD = (200, HEADERS, json.dumps(LIST, separators=(",", ":")).encode())
NEXT = (200, HEADERS | {"X-Consul-Index": "60"}, json.dumps([*LIST, entry(4)], separators=(",", ":")).encode())


class Server:
    """A list first, then ``answer`` to everything; once ``state`` is "well" a longer list, and then nothing more."""

    def __init__(self, clock, answer):
        self.clock = clock
        self.answer = answer
        self.asked = []
        self.state = "first"

    def __call__(self, settings, tls, *, blocking):
        return self

    async def get(self, callback, path, *, params, headers, connections_timeout):
        if path != "/v1/health/service/digits":
            return callback(Response(404, CIMultiDict(), [b"[]"]))
        self.asked.append(self.clock.monotonic())
        if self.state == "quiet":
            await asyncio.Event().wait()
        answer = {"first": GOOD, "ill": self.answer, "well": NEXT}[self.state]
        self.state = {"first": "ill", "ill": "ill", "well": "quiet"}[self.state]
        if isinstance(answer, Exception):
            raise answer
        status, headers, body = answer
        pieces = body if isinstance(body, list) else [body[at : at + 700] for at in range(0, len(body), 700)]
        return callback(Response(status, CIMultiDict(headers), pieces))

    async def close(self):
        pass


class NoDelay(random.Random):
    """Full jitter at its most impatient."""

    def random(self):
        return 0.0


async def watched(answer):
    """Show a watch one answer for 20 s and then a good one; give the lists it told of and its status before the end."""
    clock = ManualClock()
    server = Server(clock, answer)
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consulhttp, "Transport", server)
        directory = ConsulDirectory(ConsulSettings(), clock=clock, rng=NoDelay())
        watch = directory.watch("digits", passing_only=False)

        async def follow():
            async for snapshot in watch:
                told.append(snapshot.instances)  # noqa: PERF401 - it is looked at while it grows

        following = asyncio.create_task(follow())
        await clock.advance(0.99)
        assert len(server.asked) <= 1 + 2, "it spins"
        await clock.advance(20)
        pairs = zip(server.asked[1:], server.asked[3:], strict=False)
        assert all(later - before >= 0.99 for before, later in pairs), "it spins"
        status, bad = watch.status(), len(server.asked) - 1
        server.state = "well"
        await clock.advance(60)
        assert len(told[-1]) == len(LIST) + 1, "it did not recover"
        assert watch.status().live
        await directory.close()
        await following
    return told, status, bad


async def refused(answer):
    """Nothing of the answer is believed, and every time it came counts."""
    told, status, bad = await watched(answer)
    assert [len(each) for each in told] == [len(LIST), len(LIST) + 1]
    assert (status.live, status.failures, status.suspect) == (False, bad, False)
    assert status.last_error
    assert "\n" not in status.last_error


def understood(body):
    """The instances in a body, or None: what the codec's own tests vouch for."""
    steps = decode_in_steps([body])
    try:
        while True:
            next(steps)
    except StopIteration as done:
        return done.value
    except InvalidAnswer:
        return None


def believed_or_refused(answer):
    """Run a watch over it; what cannot be understood must be refused, all else does no more harm than it says."""
    status, _, body = answer
    instances = understood(body) if 200 <= status < 300 else None
    if instances is None:
        asyncio.run(refused(answer))
        return
    told, state, _ = asyncio.run(watched(answer))
    assert state.failures == 0
    if instances == told[0]:
        assert len(told) == 2


def changed(value, path, new):
    """A copy of a JSON value with another one in the place the path leads to."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[path[0] % len(keys)]
    if isinstance(value, dict):
        return value | {key: changed(value[key], path[1:], new)}
    return [changed(each, path[1:], new) if at == key else each for at, each in enumerate(value)]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.sampled_from([-1, 2**63, 2**64, 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
MUTATED = st.builds(changed, st.just(LIST), st.lists(st.integers(0, 9), max_size=5), JSON).map(
    lambda value: json.dumps(value, separators=(",", ":")).encode()
)
CUT = st.builds(lambda at: GOOD[2][:at], st.integers(0, len(GOOD[2]) - 1))
SPOILT = st.builds(
    lambda at, junk: GOOD[2][:at] + junk + GOOD[2][at + len(junk) :],
    st.integers(0, len(GOOD[2]) - 1),
    st.binary(min_size=1, max_size=40),
)
DOUBLED = st.lists(st.sampled_from(LIST), max_size=9).map(json.dumps).map(str.encode)
NUMBERS = st.sampled_from(["", "x", "-1", "0", "1", "39", "41", str(2**63), str(2**64), "9" * 5000, "1e9", "٣"])
WEIRD_HEADERS = st.fixed_dictionaries(
    {}, optional={"X-Consul-Index": NUMBERS, "X-Consul-LastContact": NUMBERS, "Age": NUMBERS}
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([200, 200, 200, 204, 302, 400, 403, 404, 429, 500, 503]), WEIRD_HEADERS,
       st.binary(max_size=200) | MUTATED | CUT | SPOILT | DOUBLED)  # fmt: skip
def test_any_answer_leaves_the_last_good_list_or_says_something_believable(status, headers, body):
    believed_or_refused((status, HEADERS | headers, body))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"{}", b"[null]", b"[[]]", b"[{}]", b"true", b"12", b'"ok"', b"rpc error: no leader",
        b"<html><body>502 Bad Gateway</body></html>", b"\xff\xfe", b"[" * 5000, GOOD[2] + b"x", GOOD[2] + GOOD[2],
        json.dumps([LIST[0], LIST[0], *LIST]).encode(),
        json.dumps(changed(LIST, [0, 1, 6], 10**30)).encode(),
        json.dumps(changed(LIST, [0, 1, 6], "9001")).encode(),
        json.dumps(changed(LIST, [0, 1], None)).encode(),
        json.dumps(changed(LIST, [0, 2, 0], None)).encode(),
    ],
)  # fmt: skip
def test_a_good_status_with_a_bad_body_is_refused(body):
    asyncio.run(refused((200, HEADERS, body)))


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ClientPayloadError("not enough data"), aiohttp.ServerDisconnectedError(),
        ConnectionResetError(104, "x"), TimeoutError(), aiohttp.ClientOSError(),
        OSError(24, "Too many open files"), aiohttp.InvalidURL("x"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_connection_that_breaks_is_an_error_like_any_other(error):
    asyncio.run(refused(error))


LONG = json.dumps(changed(entry(9), [1, 7, 0], "x" * 3000), separators=(",", ":")).encode()
PIECE = b",".join([LONG] * 20) + b","


@pytest.mark.parametrize(
    ("first", "repeated", "last"),
    [
        (b"[", PIECE, PIECE[:-100]),
        (b"<html>", b"x" * len(PIECE), b"</html>"),
        (b'[{"', b"[" * len(PIECE), b""),
        (b"[", b" " * len(PIECE), b"}"),
    ],
    ids=["truncated", "HTML", "brackets", "blanks"],
)
async def test_a_hundred_megabytes_of_nonsense_are_one_error(monkeypatch, first, repeated, last):
    clock = ManualClock()
    server = Server(clock, (200, HEADERS, [first, *[repeated] * (100_000_000 // len(repeated)), last]))
    monkeypatch.setattr(consulhttp, "Transport", server)
    directory = ConsulDirectory(ConsulSettings(), clock=clock, rng=NoDelay())
    watch = directory.watch("digits", passing_only=False)
    assert len((await anext(watch)).instances) == len(LIST)
    waiting = asyncio.ensure_future(anext(watch))
    async with asyncio.timeout(60):
        while not watch.status().failures:
            await asyncio.sleep(0)
    assert (watch.status().failures, watch.status().live, len(server.asked)) == (1, False, 2)
    server.state = "well"
    await clock.advance(60)
    assert len((await waiting).instances) == len(LIST) + 1
    await directory.close()
