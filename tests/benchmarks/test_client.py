"""``bench client`` runs to its end at its smallest and reports every figure; how fast anything is, is not tested."""

import asyncio
import json

import aiohttp
import pytest
from click.testing import CliRunner

from infra.bench import client as client_bench
from infra.bench.cli import bench, client_as_text
from infra.bench.picks import bytes_per_endpoint, flatness
from infra.bench.sink import Sink
from smartclient.policies.select import DEFAULT

TINY = client_bench.Effort(slices=4, calls=64, blocking_calls=8, rounds=1, picks=50)


@pytest.mark.e2e
def test_every_figure_has_its_key_and_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_bench, "Effort", lambda slices: TINY)
    done = CliRunner(catch_exceptions=False).invoke(bench, ["client", "--slices", "4", "--json"])
    result = json.loads(done.stdout)
    for arm in ("", "sync_"):
        for size in ("1kb", "100kb") if not arm else ("1kb",):
            low, high = result[f"{arm}ratio_{size}_quartiles"]
            assert 0 < low <= result[f"{arm}ratio_{size}"] <= high
            assert result[f"{arm}per_s_{size}"] > 0
    assert {"rotation", "p2c", "prequal", DEFAULT} <= set(result["pick_us"]) == set(result["pick_flatness"])
    for costs in result["pick_us"].values():
        assert list(costs) == ["10", "1000", "10000"]
        assert min(costs.values()) > 0
    assert result["bytes_per_endpoint"] > 100
    assert "aiohttp, bodies of 100kb, slice 4 of 4" in done.stderr
    shown = client_as_text(result)
    assert f"{result['ratio_1kb']:.3f}" in shown
    assert f"{DEFAULT} (the default)" in shown


def test_flatness_is_the_median_of_the_rounds_ratios() -> None:
    assert flatness({"10": [1.0, 2.0, 4.0], "1000": [], "10000": [3.0, 3.0, 5.0]}) == 1.5


def test_memory_is_told_for_each_endpoint() -> None:
    some, more = bytes_per_endpoint("rotation", 200), bytes_per_endpoint("rotation", 2000)
    assert some == pytest.approx(more, rel=0.2)


async def test_the_sink_answers_requests_that_come_in_any_pieces() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        for body in (b"", b"x", bytes(300_000)):
            async with session.post(f"http://127.0.0.1:{port}/any", data=body) as reply:
                assert (reply.status, await reply.read()) == (200, b"{}")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in (b"POST / HTTP/1.1\r\ncontent-", b"length: 4\r\n\r", b"\nab", b"cd"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)
    assert await reader.readuntil(b"{}")
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
