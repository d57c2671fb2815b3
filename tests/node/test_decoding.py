"""The decoding threads: bounded memory, tiny pictures in place, and what they say of how busy they are."""

import asyncio
import io
import math
import threading

import numpy as np
import pytest
from PIL import Image

import node.decoding
from node.decoding import Decoders
from node.errors import BadImage, ClientGone, DeadlineExceeded, Draining, TooLarge
from node.images import decode, encode_png
from node.preprocessing import Colour, Preprocessing
from node.ticket import Ticket
from registry.testing import ManualClock

WANTED = Preprocessing(height=8, width=8, colour=Colour.GREY)


class Fakes:
    """Pictures that hold what their first bytes say (``b"60 a"``), and wait at the gate of their name.

    ``held`` is what is being decoded now, ``most`` its largest sum, ``started`` the order.
    """

    def __init__(self, clock):
        self.clock = clock
        self.gates = {}
        self.held = {}
        self.most = 0
        self.started = []
        self.threads = set()
        self.parsed = []
        self.seconds = {}
        self.failing = set()
        self._lock = threading.Lock()

    def gate(self, *names):
        for name in names:
            self.gates[name] = threading.Event()

    def open(self, *names):
        for name in names or list(self.gates):
            self.gates[name].set()


class FakePicture:
    fakes: Fakes

    def __init__(self, data):
        size, name = bytes(data[:20]).split()[:2]
        self.size = self.pixels = int(size)
        self.name = name.decode()
        self.fakes.parsed.append(self.name)

    def memory(self, wanted):
        return self.size

    def decode(self, wanted):
        fakes = self.fakes
        with fakes._lock:
            fakes.started.append(self.name)
            fakes.threads.add(threading.get_ident())
            fakes.held[self] = self.size
            fakes.most = max(fakes.most, sum(fakes.held.values()))
            fakes.clock._now += fakes.seconds.get(self.name, 0.0)
        try:
            if self.name in fakes.gates:
                assert fakes.gates[self.name].wait(30)
            if self.name in fakes.failing:
                raise BadImage("damaged")
            return np.zeros((8, 8, 1), np.uint8)
        finally:
            with fakes._lock:
                del fakes.held[self]


def file(size, name, *, length=5000):
    return f"{size} {name} ".encode().ljust(length, b".")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def fakes(clock, monkeypatch):
    made = Fakes(clock)
    monkeypatch.setattr(node.decoding, "Picture", type("Picture", (FakePicture,), {"fakes": made}))
    yield made
    made.open()


@pytest.fixture
def make(clock):
    made = []

    def decoders(**options):
        made.append(Decoders(clock, **options))
        return made[-1]

    yield decoders
    for each in made:
        each.close()


def start(decoders, *sizes_and_names):
    return [asyncio.ensure_future(decoders.decode(file(size, name), WANTED)) for size, name in sizes_and_names]


class TestMemory:
    async def test_large_pictures_take_turns(self, make, fakes):
        decoders = make(threads=4, memory=100)
        await asyncio.gather(*start(decoders, *((60, f"p{n}") for n in range(8))))
        assert len(fakes.started) == 8
        assert fakes.most == 60

    async def test_as_many_go_at_once_as_fit(self, make, fakes, until):
        decoders = make(threads=4, memory=100)
        fakes.gate("a", "b")
        tasks = start(decoders, (45, "a"), (45, "b"), (45, "c"))
        await until(lambda: len(fakes.held) == 2)
        await asyncio.sleep(0.02)
        assert len(fakes.started) == 2
        fakes.open()
        await asyncio.gather(*tasks)
        assert fakes.most <= 100

    async def test_small_ones_go_on_beside_them(self, make, fakes, until):
        decoders = make(threads=4, memory=100)
        fakes.gate("large", "too")
        waiting = start(decoders, (100, "large"))
        await until(lambda: fakes.held)
        waiting += start(decoders, (100, "too"))
        await until(lambda: decoders._turns._waiting)
        await asyncio.gather(*start(decoders, *((5, f"small{n}") for n in range(10))))
        assert len(fakes.started) == 11
        fakes.open()
        await asyncio.gather(*waiting)

    async def test_who_waits_for_memory_is_not_overtaken_by_those_that_would_fit(self, make, fakes, until):
        decoders = make(threads=4, memory=160)
        fakes.gate("first", "large", "later")
        tasks = start(decoders, (20, "first"))
        await until(lambda: fakes.held)
        tasks += start(decoders, (160, "large"))
        await until(lambda: decoders._turns._waiting)
        tasks += start(decoders, (20, "later"))
        await until(lambda: "later" in fakes.parsed)
        await asyncio.sleep(0.02)
        assert fakes.started == ["first"]
        fakes.open()
        await asyncio.gather(*tasks)
        assert fakes.started == ["first", "large", "later"]

    async def test_a_picture_that_needs_more_than_all_of_it_is_refused_undecoded(self, make, fakes):
        decoders = make(threads=4, memory=100)
        with pytest.raises(TooLarge, match="send it smaller"):
            await decoders.decode(file(101, "huge"), WANTED)
        await asyncio.gather(*start(decoders, (100, "a"), (60, "b")))
        assert set(fakes.started) == {"a", "b"}

    async def test_a_failure_gives_its_memory_back(self, make, fakes):
        decoders = make(threads=2, memory=100)
        fakes.failing = {"a", "b"}
        results = await asyncio.gather(*start(decoders, (100, "a"), (100, "b")), return_exceptions=True)
        assert [type(each) for each in results] == [BadImage, BadImage]
        await asyncio.gather(*start(decoders, (100, "c")))

    async def test_one_that_nobody_waits_for_any_more_still_counts_until_it_is_through(self, make, fakes, until):
        decoders = make(threads=4, memory=100)
        fakes.gate("left")
        (left,) = start(decoders, (100, "left"))
        await until(lambda: fakes.held)
        left.cancel()
        (next_one,) = start(decoders, (100, "next"))
        await until(lambda: decoders._turns._waiting)
        assert decoders.pending == 2
        fakes.open()
        await next_one
        assert fakes.most == 100
        assert left.cancelled()


class TestWhere:
    async def test_tiny_files_are_decoded_in_place(self, make, fakes):
        decoders = make(threads=2)
        await decoders.decode(file(64, "tiny", length=4096), WANTED)
        assert fakes.threads == {threading.get_ident()}

    @pytest.mark.parametrize(("pixels", "length"), [(64, 4097), (64 * 64 + 1, 4096)])
    async def test_large_files_and_large_pictures_in_tiny_files_are_not(self, make, fakes, pixels, length):
        decoders = make(threads=2)
        await decoders.decode(file(pixels, "large", length=length), WANTED)
        assert len(fakes.threads) == 1
        assert threading.get_ident() not in fakes.threads

    async def test_warming_uses_every_thread(self, make, fakes, until):
        decoders = make(threads=3)
        fakes.gate("blank")
        warming = asyncio.ensure_future(decoders.warm(file(1, "blank"), WANTED))
        await until(lambda: len(fakes.threads) == 3)
        fakes.open()
        await warming


class TestWait:
    async def test_it_is_what_the_queue_before_the_threads_takes(self, make, fakes, until):
        decoders = make(threads=2)
        fakes.seconds = {"slow": 0.4}
        _, seconds = await decoders.decode(file(1, "slow"), WANTED)
        assert seconds == pytest.approx(0.4)
        assert decoders.wait == 0
        names = [f"p{n}" for n in range(5)]
        fakes.gate(*names)
        tasks = start(decoders, *((1, name) for name in names))
        await until(lambda: len(fakes.held) == 2)
        assert decoders.wait == pytest.approx(3 * 0.4 / 2)
        assert decoders.snapshot() == {"decoding": 5, "decode_ms": 400, "decode_wait_ms": 600}
        fakes.open()
        await asyncio.gather(*tasks)
        assert decoders.wait == 0

    async def test_the_newest_decode_counts_a_tenth(self, make, fakes):
        decoders = make(threads=1)
        fakes.seconds = {"a": 0.4, "b": 1.4}
        await decoders.decode(file(1, "a"), WANTED)
        await decoders.decode(file(1, "b"), WANTED)
        assert decoders.mean == pytest.approx(0.5)

    async def test_what_fails_is_not_pending_any_more(self, make, fakes):
        decoders = make(threads=1)
        fakes.failing = {"a"}
        with pytest.raises(BadImage):
            await decoders.decode(file(1, "a"), WANTED)
        assert decoders.pending == 0


class TestTooLate:
    async def test_what_nobody_waits_for_when_a_thread_is_free_is_not_decoded(self, make, fakes, clock, until):
        decoders = make(threads=1)
        fakes.gate("first")
        (first,) = start(decoders, (1, "first"))
        await until(lambda: fakes.held)
        left = []
        gone = asyncio.ensure_future(decoders.decode(file(1, "gone"), WANTED, Ticket(math.inf, lambda: bool(left))))
        late = asyncio.ensure_future(decoders.decode(file(1, "late"), WANTED, Ticket(clock.monotonic() + 5, bool)))
        fine = asyncio.ensure_future(decoders.decode(file(1, "fine"), WANTED, Ticket(clock.monotonic() + 7, bool)))
        left.append(True)
        await clock.advance(6)
        fakes.open()
        with pytest.raises(ClientGone):
            await gone
        with pytest.raises(DeadlineExceeded):
            await late
        await asyncio.gather(first, fine)
        assert fakes.started == ["first", "fine"]

    async def test_one_that_waited_too_long_for_memory_gives_its_turn_to_the_next(self, make, fakes, clock, until):
        decoders = make(threads=4, memory=100)
        fakes.gate("first")
        (first,) = start(decoders, (100, "first"))
        await until(lambda: fakes.held)
        late = asyncio.ensure_future(decoders.decode(file(100, "late"), WANTED, Ticket(clock.monotonic() + 5, bool)))
        await until(lambda: decoders._turns._waiting)
        (after,) = start(decoders, (100, "after"))
        await clock.advance(6)
        fakes.open()
        with pytest.raises(DeadlineExceeded):
            await late
        await asyncio.gather(first, after)
        assert fakes.started == ["first", "after"]


async def test_closing_refuses_what_waits_and_lets_the_present_one_end(make, fakes, until):
    decoders = make(threads=1, memory=100)
    fakes.gate("a")
    first, second, third = start(decoders, (1, "a"), (1, "b"), (100, "c"))
    await until(lambda: fakes.held)
    decoders.close()
    fakes.open()
    await first
    for refused in (second, third, *start(decoders, (1, "d"))):
        with pytest.raises(Draining):
            await refused
    assert fakes.started == ["a"]


def picture(kind, side):
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(out, kind)
    return out.getvalue()


class TestRealPictures:
    @pytest.mark.parametrize("data", [encode_png(np.full((8, 8, 1), 77, np.uint8)), picture("JPEG", 200)])
    async def test_the_pixels_are_those_of_the_codec(self, make, data):
        array, _ = await make(threads=2).decode(data, WANTED)
        assert np.array_equal(array, decode(data, WANTED))

    @pytest.mark.parametrize("data", [b"tiny", b"x" * 5000, picture("JPEG", 200)[:5000], picture("PNG", 40)[:3000]])
    async def test_damaged_files_are_refused_wherever_they_are_decoded(self, make, data):
        with pytest.raises(BadImage):
            await make(threads=2).decode(data, WANTED)

    @pytest.mark.parametrize("padding", [0, 5000])
    async def test_too_many_pixels_are_refused_by_the_header_alone(self, make, padding):
        out = io.BytesIO()
        Image.new("1", (10_000, 10_000)).save(out, "PNG")
        header = out.getvalue()[:100] + bytes(padding)
        with pytest.raises(TooLarge):
            await make(threads=1, memory=1).decode(header, WANTED)
