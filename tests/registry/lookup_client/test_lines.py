import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidAnswer
from registry.lookup.client.lines import Lines


class Chunks:
    """Gives its chunks, then nothing; waits where one is None."""

    def __init__(self, *chunks):
        self._chunks = list(chunks)

    async def readany(self):
        while self._chunks and self._chunks[0] is None:
            await asyncio.sleep(0)
        return self._chunks.pop(0) if self._chunks else b""

    def go_on(self):
        self._chunks.remove(None)


async def read(lines):
    found = []
    while await lines.more():
        found.append(lines.take())
    return found


@settings(deadline=None)
@given(st.lists(st.binary(max_size=8).map(lambda text: text.replace(b"\n", b"")), max_size=8), st.data())
async def test_however_the_bytes_are_cut_the_lines_are_the_same(lines, data):
    text = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) if start < end]
    assert await read(Lines(Chunks(*chunks))) == lines


async def test_a_line_that_breaks_off_is_no_line():
    lines = Lines(Chunks(b"one\ntw"))
    assert await lines.more()
    assert lines.take() == b"one"
    with pytest.raises(InvalidAnswer, match="middle"):
        await lines.more()


async def test_a_line_without_end_is_given_up_before_it_fills_the_memory():
    chunks = Chunks(*[b"x" * 1000] * 100)
    with pytest.raises(InvalidAnswer, match="line of more than"):
        await Lines(chunks, largest=5000).more()
    assert len(chunks._chunks) == 94


async def test_waiting_can_be_cancelled_and_nothing_is_lost():
    chunks = Chunks(b"on", None, b"e\n")
    lines = Lines(chunks)
    waiting = asyncio.ensure_future(lines.more())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert not lines.ready
    chunks.go_on()
    assert await lines.more()
    assert lines.take() == b"one"
