"""A server that answers what a dashboard asks of a Consul, over a fleet that changes: a process of its own.

``python -m infra.bench.dashboard_registry SERVICES INSTANCES CHANGES_PER_S`` prints a JSON line with its ``address``,
on loopback. Changes begin with the first line on standard input; each line is answered with how many there have been.
Only reads are answered, with blocking queries as Consul has them.
"""

import asyncio
import json
import random
import sys
import time

from aiohttp import web

from infra.bench.dashboard_fleet import Fleet

SEED = 7
# Seconds that a blocking query waits when it does not say.
_WAIT = 300.0


class Registry:
    """Handlers over a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.changes = 0
        self._fleet = fleet
        self._news = {name: asyncio.Event() for name in fleet.names}
        self._never = asyncio.Event()

    async def churn(self, per_second: float) -> None:
        """Let things happen at a rate, for ever; what a pause kept back is made up for."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(began + (self.changes + 1) / per_second - time.monotonic())
            self.changes += 1
            name = self._fleet.change()
            news, self._news[name] = self._news[name], asyncio.Event()
            news.set()

    async def leader(self, _: web.Request) -> web.Response:
        """Who leads."""
        return web.json_response("127.0.0.1:8300")

    async def services(self, request: web.Request) -> web.Response:
        """The names, which never change."""
        if int(request.query.get("index", "0")) >= 1:
            await _within(_wait(request), self._never)
        return web.json_response({name: ["http"] for name in self._fleet.names}, headers=_headers(1))

    async def health(self, request: web.Request) -> web.Response:
        """The instances of a service with their checks; none of a service that is not known."""
        name = request.match_info["name"]
        if name not in self._news:
            return web.json_response([], headers=_headers(1))
        if self._fleet.index[name] <= int(request.query.get("index", "0")):
            await _within(_wait(request), self._news[name])
        index = self._fleet.index[name]
        return web.Response(body=self._fleet.body(name), content_type="application/json", headers=_headers(index))


async def main(services: int, instances: int, per_second: float) -> None:
    """Serve until standard input ends."""
    registry = Registry(Fleet(services, instances, random.Random(SEED)))
    app = web.Application()
    app.add_routes(
        [
            web.get("/v1/status/leader", registry.leader),
            web.get("/v1/catalog/services", registry.services),
            web.get("/v1/health/service/{name}", registry.health),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"address": f"127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    asking = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asking), sys.stdin)
    churn: asyncio.Task[None] | None = None
    while await asking.readline():
        churn = churn or asyncio.create_task(registry.churn(per_second))
        print(json.dumps({"changes": registry.changes}), flush=True)
    await runner.cleanup()


async def _within(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass  # then the answer is as it was


def _wait(request: web.Request) -> float:
    """Seconds, of ``60s`` or ``60000ms``."""
    text = request.query.get("wait", "")
    if text.endswith("ms"):
        return float(text.removesuffix("ms")) / 1000
    return float(text.removesuffix("s")) if text else _WAIT


def _headers(index: int) -> dict[str, str]:
    return {"X-Consul-Index": str(index), "X-Consul-Knownleader": "true", "X-Consul-Lastcontact": "0"}


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
