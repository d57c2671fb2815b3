"""Whatever a look-up service sends: the last list stays, one failure is counted, nothing spins, and it goes on."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidAnswer, RegistryError, RegistryUnavailable
from registry.lookup.client.lines import LARGEST
from registry.lookup.client.stream import StreamWatch
from registry.lookup.wire import Resync, decode_line, line
from registry.query import Query
from registry.testing import ManualClock, instance
from tests.registry.lookup_client.fake import FakeService, delta, heartbeat, listing, some, whole
from tests.registry.lookup_client.scripted import END, Most, Services
from tests.registry.lookup_client.test_client import directory_at

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=9), values, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["event", "index", "part", "parts", "stale_for", "instances", "changed", "removed", "id", "address", "port",
     "weight", "health", "tags", "meta"]
)  # fmt: skip
LINES = st.sampled_from(
    [whole(some(10), 9), whole(some(4), 9, part=1, parts=3), whole(some(4), 9, part=3, parts=3), whole((), 9),
     delta(instance(3, weight=2), removed=["digits-1"]), heartbeat(), heartbeat(90.0), line(Resync())]
)  # fmt: skip


@st.composite
def lines_with_another_value(draw):
    """A line a service could send, with one value another one."""
    event = msgspec.json.decode(draw(LINES))
    target = draw(st.sampled_from([event, *event.get("instances", []), *event.get("changed", [])]))
    target[draw(st.sampled_from(list(target)) | FIELDS)] = draw(JSON)
    return msgspec.json.encode(event) + b"\n"


@st.composite
def damaged_lines(draw):
    """A line with some bytes cut out and others put in."""
    text = draw(LINES)
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    return text[:start] + draw(st.binary(max_size=6)) + text[end:]


ANYTHING = st.lists(
    LINES | damaged_lines() | lines_with_another_value() | st.binary(max_size=30) | JSON.map(msgspec.json.encode),
    max_size=6,
)


@settings(deadline=None)
@given(ANYTHING)
async def test_whatever_a_stream_brings(sent):
    clock = ManualClock()
    services = Services(clock)
    services.then(whole(some(10)), END)
    services.then(*[each for each in sent if each], END)
    services.then(whole(some(12)))
    watch = StreamWatch(Query("digits"), services, clock=clock, rng=Most())
    published = [(await anext(watch)).instances]

    async def follow():
        while published[-1] != some(12):
            published.append((await anext(watch)).instances)

    following = asyncio.create_task(follow())
    await clock.settle(200)
    await clock.advance(0.9)
    assert len(services.connected_at) == 2
    assert watch.status().failures <= 1
    if not any(_understood(each) for each in b"".join(sent).split(b"\n")):
        assert published == [some(10)]
        assert watch.status().failures == 1
    for each in published:
        ids = [instance.id for instance in each]
        assert ids == sorted(set(ids))
    for _ in range(60):
        if following.done():
            break
        await clock.settle(50)
        await clock.advance(2)
    await asyncio.wait_for(following, 0)  # and raises nothing
    assert watch.status().live
    await watch.aclose()


def _understood(text):
    try:
        decode_line(text)
    except InvalidAnswer:
        return False
    return True


@settings(deadline=None)
@given(lines_with_another_value() | damaged_lines() | st.binary() | JSON.map(msgspec.json.encode))
def test_whatever_a_line_is_it_is_an_event_or_an_invalid_answer(text):
    _understood(text)


@pytest.fixture(scope="module")
def hundred_megabytes():
    return b"[" + b'{"id":"digits-1"},' * (100 * 1024 * 1024 // 18) + b"]"


async def test_a_hundred_megabytes_are_given_up_before_they_are_held(hundred_megabytes):
    async with FakeService() as service:
        directory = directory_at(service.address)
        service.answers(hundred_megabytes)
        with pytest.raises(InvalidAnswer, match=f"more than {LARGEST >> 20} MB"):
            await directory.lookup("digits")
        stream = await directory._services.stream(Query("digits"))
        with pytest.raises(InvalidAnswer, match=f"more than {LARGEST >> 20} MB"):
            await stream.more()
        stream.close()
        await directory.close()


@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=300) | damaged_lines(), st.sampled_from([200, 204, 301, 400, 401, 404, 418, 500, 503]))
async def test_whatever_an_answer_is_it_is_a_list_or_an_error_of_ours(body, status):
    async with FakeService() as service:
        service.answers(body, status)
        directory = directory_at(service.address)
        with pytest.raises(RegistryError) as caught:
            await directory.lookup("digits")
        assert str(caught.value).isprintable()
        service.answers(listing(some(2)))
        assert (await directory.lookup("digits")).instances == some(2)
        await directory.close()


async def test_whatever_is_no_http_is_an_error_of_ours():
    async def shout(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    directory = directory_at(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(RegistryUnavailable, match="it does not speak HTTP"):
        await directory.lookup("digits")
    await directory.close()
    server.close()
