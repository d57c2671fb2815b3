"""The routes under ``/v1/agent``: what instances and their operators write."""

from typing import Any

from aiohttp import web

from registry.embedded.catalog import ServiceRecord, UnknownId
from registry.embedded.core import Core, flag, named, required_flag, wanted
from registry.embedded.definitions import check_definition, check_update, service_definition
from registry.embedded.fields import CHECK, SERVICE
from registry.embedded.views import agent_health, check_view, content_hash, self_view, service_view, worst

_STATUS_CODES = {"passing": 200, "warning": 429, "critical": 503, "maintenance": 503}


class AgentApi:
    """Handlers; ``routes`` lists them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._catalog = core.catalog

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each."""
        read = {
            "/v1/agent/self": self.about,
            "/v1/agent/members": self.members,
            "/v1/agent/services": self.services,
            "/v1/agent/checks": self.checks,
            "/v1/agent/health/service/id/{id:.*}": self.health,
            "/v1/agent/health/service/name/{name:.*}": self.service_health,
            "/v1/agent/service/{id:.*}": self.service,
        }
        write = {
            "/v1/agent/maintenance": self.machine_maintenance,
            "/v1/agent/service/register": self.register,
            "/v1/agent/service/deregister/{id:.*}": self.deregister,
            "/v1/agent/service/maintenance/{id:.*}": self.maintenance,
            "/v1/agent/check/register": self.register_check,
            "/v1/agent/check/deregister/{id:.*}": self.deregister_check,
            "/v1/agent/check/update/{id:.*}": self.update_check,
            "/v1/agent/check/{verb:pass|warn|fail}/{id:.*}": self.beat,
        }
        puts = [web.put(path, handler) for path, handler in write.items()]
        return puts + [web.get(path, handler, allow_head=False) for path, handler in read.items()]

    async def about(self, request: web.Request) -> web.Response:
        """What this process is."""
        return self._core.reply(request, self_view(self._core.machine, self._core.port))

    async def members(self, request: web.Request) -> web.Response:
        """The one member."""
        return self._core.reply(request, [self_view(self._core.machine, self._core.port)["Member"]])

    async def services(self, request: web.Request) -> web.Response:
        """All services, by id."""
        holds = wanted(request, SERVICE)
        views = ((key, service_view(self._catalog.services[key])) for key in sorted(self._catalog.services))
        return self._core.reply(request, {key: view for key, view in views if holds(view)})

    async def service(self, request: web.Request) -> web.Response:
        """One service; with ``hash``, once it is not what it was."""
        service_id, known = request.match_info["id"], request.query.get("hash", "")

        def found() -> dict[str, Any]:
            record = self._catalog.services.get(service_id)
            if record is None:
                raise web.HTTPNotFound(text=f"unknown service ID: {service_id}")
            view = service_view(record)
            return view | {"ContentHash": content_hash(view)}

        def changed() -> bool:
            return service_id not in self._catalog.services or found()["ContentHash"] != known

        if known:
            await self._core.block_until(request, changed)
        view = found()
        reply = self._core.reply(request, view)
        reply.headers["X-Consul-ContentHash"] = view["ContentHash"]
        return reply

    async def checks(self, request: web.Request) -> web.Response:
        """All checks, by id."""
        holds = wanted(request, CHECK)
        views = (
            (key, check_view(self._catalog.checks[key], self._catalog, self._core.machine))
            for key in sorted(self._catalog.checks)
        )
        return self._core.reply(request, {key: view for key, view in views if holds(view)})

    async def health(self, request: web.Request) -> web.Response:
        """One service's health, in the status code as well."""
        service_id = named(request, "id", "serviceID")
        found = self._catalog.services.get(service_id)
        if found is None:
            nothing = {"AggregatedStatus": "critical", "Service": None, "Checks": None}
            return self._health(request, "critical", nothing, status=404, text=f"ServiceId {service_id} not found")
        view = self._health_of(found)
        return self._health(request, view["AggregatedStatus"], view)

    async def service_health(self, request: web.Request) -> web.Response:
        """The health of all instances of a name, the worst of them in the status code as well."""
        name = named(request, "name", "service Name")
        views = [self._health_of(each) for each in self._catalog.named(name)]
        if not views:
            return self._health(request, "critical", [], status=404, text=f"ServiceName {name} Not Found")
        return self._health(request, worst(view["AggregatedStatus"] for view in views), views)

    def _health_of(self, service: ServiceRecord) -> dict[str, Any]:
        return agent_health(self._catalog, self._core.machine, service)

    def _health(
        self, request: web.Request, word: str, view: Any, *, status: int | None = None, text: str = ""
    ) -> web.Response:
        """Answer in JSON, or with ``format=text`` in a word."""
        status = status or _STATUS_CODES[word]
        if request.query.get("format") == "text":
            return web.Response(text=text or word, status=status, headers={"X-Consul-Reason": word})
        reply = self._core.reply(request, view, status=status)
        reply.headers["X-Consul-Reason"] = word
        return reply

    async def register(self, request: web.Request) -> web.Response:
        """Add or replace a service."""
        service, checks = service_definition(await request.read())
        replace = flag(request, "replace-existing-checks")
        self._catalog.register(service, checks, self._core.clock.monotonic(), replace_checks=replace)
        return web.Response()

    async def deregister(self, request: web.Request) -> web.Response:
        """Forget a service."""
        service_id = named(request, "id", "service ID")
        try:
            self._catalog.deregister(service_id)
        except UnknownId:
            raise _unknown("service", service_id) from None
        return web.Response()

    async def maintenance(self, request: web.Request) -> web.Response:
        """Take a service out, or back in."""
        service_id, on = named(request, "id", "service ID"), required_flag(request, "enable")
        try:
            self._catalog.maintenance(service_id, on, request.query.get("reason", ""), self._core.clock.monotonic())
        except UnknownId:
            raise _unknown("service", service_id) from None
        return web.Response()

    async def machine_maintenance(self, request: web.Request) -> web.Response:
        """Take everything out, or back in."""
        on = required_flag(request, "enable")
        self._catalog.maintenance("", on, request.query.get("reason", ""), self._core.clock.monotonic())
        return web.Response()

    async def register_check(self, request: web.Request) -> web.Response:
        """Add or replace a check."""
        check = check_definition(await request.read())
        try:
            self._catalog.add_check(check, self._core.clock.monotonic())
        except UnknownId:
            raise web.HTTPInternalServerError(text=f'ServiceID "{check.service_id}" does not exist') from None
        return web.Response()

    async def deregister_check(self, request: web.Request) -> web.Response:
        """Forget a check."""
        check_id = named(request, "id", "check ID")
        try:
            self._catalog.remove_check(check_id)
        except UnknownId:
            raise _unknown("check", check_id) from None
        return web.Response()

    async def update_check(self, request: web.Request) -> web.Response:
        """Report on a TTL check, in a body."""
        status, output = check_update(await request.read())
        return self._report(request, status, output)

    async def beat(self, request: web.Request) -> web.Response:
        """Report on a TTL check, in the path."""
        status = {"pass": "passing", "warn": "warning", "fail": "critical"}[request.match_info["verb"]]
        return self._report(request, status, request.query.get("note", ""))

    def _report(self, request: web.Request, status: str, output: str) -> web.Response:
        check_id = named(request, "id", "check ID")
        check = self._catalog.checks.get(check_id)
        if check is None:
            raise _unknown("check", check_id)
        if not check.probe.ttl:
            raise web.HTTPInternalServerError(text=f'CheckID "{check_id}" does not have associated TTL')
        self._catalog.report(check_id, status, output, self._core.clock.monotonic())
        return web.Response()


def _unknown(kind: str, wanted: str) -> web.HTTPNotFound:
    return web.HTTPNotFound(text=f'Unknown {kind} ID "{wanted}"; is it the ID, and not the name?')
