"""One ``SmartClient`` for many threads, and for processes that fork after it was used, as application servers do.

The nodes note which process each request came from, and over which connection: no connection may carry two.
"""

import json
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODES, CALLS, THREADS = 3, 30, 8


class Nodes:
    """Three servers; ``processes``: which processes' requests each connection carried, ``asked``: calls by process."""

    def __init__(self) -> None:
        self.processes: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        nodes = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                process = self.headers["X-Process"]
                with nodes._lock:
                    nodes.processes[self.client_address].add(process)
                    nodes.asked[process] += 1
                body = self.path.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(NODES)]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.address = "static://" + ",".join(f"127.0.0.1:{server.server_port}" for server in self._servers)

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.close()


WORK = f"""
import json, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking a process that has threads
from smartclient import SmartClient

client = SmartClient("digits", sys.argv[1])
wrong = []

def calls(thread):
    me = str(os.getpid())
    for number in range({CALLS}):
        path = f"/{{me}}/{{thread}}/{{number}}"
        if client.get(path, headers={{"X-Process": me}}).text() != path:
            wrong.append(path)

def work():
    threads = [threading.Thread(target=calls, args=(number,)) for number in range({THREADS})]
    for thread in threads:
        thread.start()
    return threads

def finish(threads):
    for thread in threads:
        thread.join()
    assert not wrong, wrong
"""

PREFORK = """
finish(work())
during = work()  # the fork comes in the middle of these
workers = []
for _ in range(3):
    worker = os.fork()
    if worker == 0:
        finish(work())
        client.close()
        os._exit(0)
    workers.append(worker)
finish(during)
print(json.dumps([os.waitpid(worker, 0)[1] for worker in workers]))
client.close()
"""

MULTIPROCESSING = """
import multiprocessing

def task(_):
    finish(work())
    return os.getpid()

finish(work())
during = work()
with multiprocessing.get_context("fork").Pool(3) as pool:
    done = pool.map(task, range(3), chunksize=1)
finish(during)
print(json.dumps([0 for _ in done]))
client.close()
"""


@pytest.mark.parametrize("program", [PREFORK, MULTIPROCESSING], ids=["prefork", "multiprocessing"])
def test_a_client_used_before_and_during_a_fork_works_on_both_sides_and_shares_no_connection(
    nodes: Nodes, program: str
) -> None:
    command = [sys.executable, "-c", WORK + program, nodes.address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, 0, 0]
    assert "Traceback" not in done.stderr
    assert sum(nodes.asked.values()) == 5 * THREADS * CALLS  # the parent twice, three children once
    assert len(nodes.asked) >= 2  # a pool may give all its tasks to one of its processes
    assert all(len(processes) == 1 for processes in nodes.processes.values()), "a connection crossed the fork"
