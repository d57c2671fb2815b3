import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smartclient import SmartClient
from smartclient.errors import BadInput, BadOption, ClientClosed, DeadlineExceeded, RegistryGone

ROOT = Path(__file__).parents[2]


@pytest.fixture
def client(served) -> Iterator[SmartClient]:
    with SmartClient("digits", served.registry) as made:
        yield made


def client_threads() -> int:
    return sum(thread.name.startswith("smartclient ") for thread in threading.enumerate())


def test_classify_request_get_and_post_block_and_answer(client: SmartClient, tmp_path: Path) -> None:
    path = tmp_path / "7.png"
    path.write_bytes(b"png")
    client.ready()
    assert client.classify(str(path)).label == "7"
    assert client.get("/x").status == 200
    assert client.post("/x", data=b"..").ok
    assert client.request("PUT", "/x").json()["results"]
    assert client.snapshot()["calls"]["calls"] == 4


def test_many_threads_share_one_client_and_one_exact_rotation(served) -> None:
    with SmartClient("digits", served.registry, policy="rotation") as client, ThreadPoolExecutor(20) as pool:
        nodes = Counter(pool.map(lambda _: client.classify(b"png").node, range(60)))
        assert client_threads() == 1
    assert nodes == {"digits-1": 20, "digits-2": 20, "digits-3": 20}


def test_classify_many_is_an_iterator(client: SmartClient) -> None:
    results = list(client.classify_many(b"png" for _ in range(50)))
    assert [each.result.label for each in results] == ["7"] * 50


def test_classify_many_may_be_left_early(client: SmartClient) -> None:
    def for_ever() -> Iterator[bytes]:
        while True:
            yield b"png"

    for number, _ in enumerate(client.classify_many(for_ever())):
        if number == 10:
            break
    assert client.classify(b"png").label == "7"


def test_errors_are_those_of_the_async_client(client: SmartClient) -> None:
    with pytest.raises(BadInput, match="no such file"):
        client.classify("nowhere.png")
    with pytest.raises(DeadlineExceeded):
        client.get("/", params={"sleep": 5}, timeout=0.1)
    with pytest.raises(BadOption):
        SmartClient("digits", policy="fastest")
    with SmartClient("digits", "consul://127.0.0.1:1") as lost, pytest.raises(RegistryGone):
        lost.classify(b"png")


def test_after_close_it_says_so_and_the_thread_is_gone(served) -> None:
    client = SmartClient("digits", served.registry)
    client.classify(b"png")
    client.close()
    client.close()
    assert client_threads() == 0
    with pytest.raises(ClientClosed, match="'digits' is closed; make another one"):
        client.classify(b"png")


def test_a_client_never_used_starts_no_thread(served) -> None:
    SmartClient("digits", served.registry).close()
    assert client_threads() == 0


def test_closing_ends_the_calls_of_other_threads(served) -> None:
    client = SmartClient("digits", served.registry)
    client.ready()
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(client.get, "/", params={"sleep": 20}) for _ in range(5)]
        while client.snapshot()["calls"]["in_flight"] < 5:
            time.sleep(0.01)
        client.close()
        for call in calls:
            with pytest.raises(ClientClosed):
                call.result(timeout=10)


def test_a_forgotten_client_is_closed_by_the_garbage_collector(served) -> None:
    client = SmartClient("digits", served.registry)
    client.classify(b"png")
    assert client_threads() == 1
    del client
    gc.collect()
    assert client_threads() == 0


def test_it_works_inside_a_running_loop(client: SmartClient) -> None:
    async def careless() -> str:
        return client.classify(b"png").label

    assert asyncio.run(careless()) == "7"


def run(code: str, registry: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, registry],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_program_that_forgets_to_close_ends_quietly(served) -> None:
    done = run(
        "import sys; from smartclient import SmartClient\n"
        "client = SmartClient('digits', sys.argv[1]); print(client.classify(b'png').label)",
        served.registry,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("7\n", "", 0)


def test_a_forked_child_begins_afresh_and_leaves_the_parents_client_alone(served) -> None:
    done = run(
        "import os, sys; from smartclient import SmartClient\n"
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)  # 3.12: forking with threads\n"
        "client = SmartClient('digits', sys.argv[1]); client.classify(b'png')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    with client: assert client.classify(b'png').label == '7'\n"
        "    sys.exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "print(client.classify(b'png').label, client.snapshot()['calls']['calls'])",
        served.registry,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("7 2\n", "", 0)


def test_ctrl_c_interrupts_a_blocked_call(served) -> None:
    code = (
        "import sys; from smartclient import SmartClient\n"
        "client = SmartClient('digits', sys.argv[1]); client.ready(); print('ready', flush=True)\n"
        "try: client.get('/', params={'sleep': 50}, timeout=60)\n"
        "except KeyboardInterrupt: client.close(); sys.exit(3)"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code,
            served.registry,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 3


def test_a_stream_left_open_may_be_collected_in_the_clients_own_thread(served) -> None:
    program = (
        "import gc, sys, threading\n"
        "from smartclient import SmartClient\n"
        "client = SmartClient('digits', sys.argv[1])\n"
        "gc.disable()\n"
        "opened = client.stream('GET', '/')\n"
        "opened.__enter__()\n"
        "cycle = [opened]\n"
        "cycle.append(cycle)\n"
        "del opened, cycle\n"
        "async def collect(_):\n"
        "    return gc.collect()\n"
        "thread = threading.Thread(target=client._background.run, args=(collect,), daemon=True)\n"
        "thread.start()\n"
        "thread.join(30)\n"
        "print('stuck' if thread.is_alive() else client.get('/').status, flush=True)\n"
        "thread.is_alive() and __import__('os')._exit(1)\n"
        "client.close()\n"
    )
    command = [sys.executable, "-c", program, served.registry]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "200", done.stderr
