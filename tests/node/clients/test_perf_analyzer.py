"""Triton's load tester against a node: it reads metadata, configuration and statistics, and sends binary tensors.

A load tester that asks a real server by default is a good test of the small answers: it stops at the first it does not
understand. The program was left out of later wheels; see ``perf_analyzer.txt``.
"""

import asyncio
import csv
import os
import re
from pathlib import Path

import pytest

from tests.support import missing

HERE = Path(__file__).parent
# Three windows of so many requests, however long they take and whatever they show: nothing here is about speed.
WINDOWS = ("--measurement-mode", "count_windows", "--measurement-request-count", "50", "--measurement-interval", "200")
QUICK = (*WINDOWS, "--stability-percentage", "1000000", "--max-trials", "5")


@pytest.fixture(scope="session")
def analyzer(unpacked):
    """The program and the libraries it needs."""
    folder = unpacked(HERE / "perf_analyzer.txt", "libb64-0d")
    (program,) = folder.glob("tritonclient-*.data/data/bin/perf_analyzer")
    program.chmod(0o755)
    libraries = {str(file.parent) for name in ("libcudart.so.12", "libb64.so.0d") for file in folder.rglob(name)}
    if len(libraries) < 2:
        missing("perf_analyzer's libraries", f"remove {folder}, they are fetched again")
    return program, ":".join(sorted(libraries))


@pytest.fixture
def analyze(analyzer, tmp_path):
    """Run it against a node; gives its exit status, what it said, and the rows of its report."""
    program, libraries = analyzer

    async def run(node, model, *options):
        report = tmp_path / "report.csv"
        running = await asyncio.create_subprocess_exec(
            str(program),
            *("-m", model, "-u", node.url.removeprefix("http://"), "-f", str(report), *QUICK, *options),
            env=os.environ | {"LD_LIBRARY_PATH": libraries},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(running.communicate(), 60)
        rows = list(csv.DictReader(report.read_text().splitlines())) if report.exists() else []
        return running.returncode, said.decode(), rows

    return run


def counted(said: str, what: str) -> int:
    return sum(int(count) for count in re.findall(rf"{what}: (\d+)", said))


@pytest.mark.timeout(960)  # fetching it the first time
@pytest.mark.parametrize("options", [(), ("--async",)])
async def test_it_loads_a_node_and_reads_its_statistics(analyze, node, options):
    status, said, rows = await analyze(node, "digits", "-b", "3", "--concurrency-range", "1:4:3", *options)
    assert status == 0, said
    assert {row["Concurrency"] for row in rows} == {"1", "4"}  # in the order of their speed
    assert counted(said, "Successful request count") > 0  # the server's own count, from /stats
    assert counted(said, "Inference count") == 3 * counted(said, "Successful request count")
    (served,) = node.repository.serving()
    assert served.tally.fail.count == 0
    assert served.tally.rows >= 3 * counted(said, "Request count")


@pytest.mark.timeout(960)
async def test_free_sizes_and_text_are_sent_as_told(analyze, serve_echo):
    node = await serve_echo("FP32", "BYTES")
    shapes = ("--shape", "x_FP32:5", "--shape", "x_BYTES:2", "--string-length", "7")
    status, said, rows = await analyze(node, "echo", *shapes)
    assert status == 0, said
    assert len(rows) == 1
    (served,) = node.repository.serving()
    assert served.tally.success.count > 0
    assert served.tally.fail.count == 0


@pytest.mark.timeout(960)
async def test_it_is_told_what_is_wrong(analyze, node):
    status, said, _ = await analyze(node, "other")
    assert status != 0
    assert "there is no model 'other' here" in said
