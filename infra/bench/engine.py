"""A node without a model: an engine that takes a known time, one request at a time, and says how busy it is.

``python -m infra.bench.engine --mean-ms 50`` prints the port it listens on, on loopback. Service times are lognormal
with that mean, drawn from a seeded generator and slept, not burnt, so that many engines fit on few cores. ``POST
/work`` and ``/classify`` take their turn; ``/load`` and the header on every answer are in a real node's form
(``node.load``); ``/count`` tells how often work was asked for. A process that is stopped by a signal goes on in its
books: what would have been done meanwhile is answered when it wakes up.
"""

import argparse
import asyncio
import json
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from infra.bench.echo import ANSWER
from node.load import HEADER, PATH, BusyShare, Load, Rate, report, slowest

BODY = json.dumps(ANSWER).encode()


class Engine:
    """Who is inside and until when: first come, first served. Seconds; ``now`` never goes back."""

    def __init__(self, rng: random.Random, *, mean: float, sigma: float) -> None:
        self._rng = rng
        self._mean = mean
        self._sigma = sigma
        self._inside: deque[tuple[float, float]] = deque()  # when each begins and ends, the running one first
        self._busy = BusyShare()
        self._answered = Rate()

    def take(self, now: float) -> float:
        """Let a request in; seconds until its answer."""
        self._settle(now)
        if not self._inside:
            self._busy.turn(True, now)
        begins = self._inside[-1][1] if self._inside else now
        self._inside.append((begins, begins + self._draw()))
        return self._inside[-1][1] - now

    def load(self, now: float) -> Load:
        """What it says of itself: it knows its mean, not what it will draw."""
        self._settle(now)
        queue = max(0, len(self._inside) - 1)
        rest = max(0.0, self._mean - (now - self._inside[0][0])) if self._inside else 0.0
        return report(
            wait=queue * self._mean + rest,
            inflight=len(self._inside),
            queue=queue,
            capacity=slowest((1, self._mean)),
            utilization=self._busy.at(now),
            rps=self._answered.at(now),
        )

    def _draw(self) -> float:
        """A lognormal has the mean exp(mu + sigma² / 2)."""
        if self._mean <= 0:
            return 0.0
        return self._rng.lognormvariate(math.log(self._mean) - self._sigma**2 / 2, self._sigma)

    def _settle(self, now: float) -> None:
        while self._inside and self._inside[0][1] <= now:
            _, ended = self._inside.popleft()
            self._answered.count(ended)
            if not self._inside:
                self._busy.turn(False, ended)


class EngineServer:
    """The engine over HTTP. ``refusal``: a status and headers to answer everything with, nothing being done."""

    def __init__(self, engine: Engine, refusal: tuple[int, Mapping[str, str]] | None = None) -> None:
        self.requests = 0
        self._engine = engine
        self._refusal = refusal

    def application(self) -> web.Application:
        """Every route."""
        app = web.Application()
        app.router.add_get("/count", self._count)
        if self._refusal is not None:
            app.router.add_route("*", "/{path:.*}", self._refusing(*self._refusal))
            return app
        app.router.add_post("/work", self._work)
        app.router.add_post("/classify", self._work)
        app.router.add_get(PATH, self._load)
        app.router.add_get("/readyz", self._ready)
        return app

    async def _work(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests += 1
        seconds = self._engine.take(time.monotonic())
        if seconds > 0:
            await asyncio.sleep(seconds)
        said = self._engine.load(time.monotonic()).orca
        return web.Response(body=BODY, content_type="application/json", headers={HEADER: said})

    async def _load(self, _: web.Request) -> web.Response:
        said = msgspec.json.encode(self._engine.load(time.monotonic()))
        return web.Response(body=said, content_type="application/json")

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(text="ready")

    async def _count(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": self.requests})

    def _refusing(self, status: int, headers: Mapping[str, str]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def refuse(request: web.Request) -> web.Response:
            await request.read()
            self.requests += request.method == "POST"
            return web.json_response({"error": f"told to answer {status}"}, status=status, headers=headers)

        return refuse


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="infra.bench.engine", allow_abbrev=False)
    parser.add_argument("--mean-ms", type=float, default=50.0, help="mean service time; 0: answer at once")
    parser.add_argument("--sigma", type=float, default=0.5, help="of the lognormal; 0: always the mean")
    parser.add_argument("--slow", type=float, default=1.0, help="so many times slower than the mean")
    parser.add_argument("--seed", type=int, default=0, help="of the service times")
    parser.add_argument("--status", type=int, default=0, help="answer this to everything")
    parser.add_argument("--retry-after", default="", help="seconds, sent along with --status")
    options = parser.parse_args()
    mean = options.mean_ms * options.slow / 1000.0
    engine = Engine(random.Random(options.seed), mean=mean, sigma=options.sigma)
    headers = {"Retry-After": options.retry_after} if options.retry_after else {}
    server = EngineServer(engine, (options.status, headers) if options.status else None)
    web.run_app(
        server.application(),
        host="127.0.0.1",
        port=0,
        access_log=None,
        shutdown_timeout=0.1,
        print=lambda text: print(text.split()[3].rpartition(":")[2], flush=True),
    )


if __name__ == "__main__":
    main()
