"""The routes under ``/v1/agent``: what instances and their operators write."""

from aiohttp import web

from registry.embedded.catalog import UnknownId
from registry.embedded.core import Core, required_flag
from registry.embedded.core import flag as set_flag
from registry.embedded.definitions import check_definition, check_update, service_definition
from registry.embedded.views import agent_health, check_view, self_view, service_view

_STATUS_CODES = {"passing": 200, "warning": 429, "critical": 503, "maintenance": 503}


class AgentApi:
    """Handlers; ``routes`` lists them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._catalog = core.catalog

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each."""
        return [
            web.get("/v1/agent/self", self.about),
            web.get("/v1/agent/members", self.members),
            web.get("/v1/agent/services", self.services),
            web.get("/v1/agent/checks", self.checks),
            web.put("/v1/agent/maintenance", self.machine_maintenance),
            web.get("/v1/agent/health/service/id/{id:.+}", self.health),
            web.put("/v1/agent/service/register", self.register),
            web.put("/v1/agent/service/deregister/{id:.+}", self.deregister),
            web.put("/v1/agent/service/maintenance/{id:.+}", self.maintenance),
            web.get("/v1/agent/service/{id:.+}", self.service),
            web.put("/v1/agent/check/register", self.register_check),
            web.put("/v1/agent/check/deregister/{id:.+}", self.deregister_check),
            web.put("/v1/agent/check/update/{id:.+}", self.update_check),
            web.put("/v1/agent/check/{verb:pass|warn|fail}/{id:.+}", self.beat),
        ]

    async def about(self, request: web.Request) -> web.Response:
        """What this process is."""
        return self._core.reply(request, self_view(self._core.machine, self._core.port))

    async def members(self, request: web.Request) -> web.Response:
        """The one member."""
        return self._core.reply(request, [self_view(self._core.machine, self._core.port)["Member"]])

    async def services(self, request: web.Request) -> web.Response:
        """All services, by id."""
        found = {key: service_view(self._catalog.services[key]) for key in sorted(self._catalog.services)}
        return self._core.reply(request, found)

    async def service(self, request: web.Request) -> web.Response:
        """One service."""
        found = self._catalog.services.get(request.match_info["id"])
        if found is None:
            raise web.HTTPNotFound(text=f"unknown service ID: {request.match_info['id']}")
        return self._core.reply(request, service_view(found))

    async def checks(self, request: web.Request) -> web.Response:
        """All checks, by id."""
        found = {
            key: check_view(self._catalog.checks[key], self._catalog, self._core.machine)
            for key in sorted(self._catalog.checks)
        }
        return self._core.reply(request, found)

    async def health(self, request: web.Request) -> web.Response:
        """One service's health, in the status code as well."""
        found = self._catalog.services.get(request.match_info["id"])
        if found is None:
            nothing = {"AggregatedStatus": "critical", "Service": None, "Checks": None}
            return self._core.reply(request, nothing, status=404)
        status, answer = agent_health(self._catalog, self._core.machine, found)
        return self._core.reply(request, answer, status=_STATUS_CODES[status])

    async def register(self, request: web.Request) -> web.Response:
        """Add or replace a service."""
        service, checks = service_definition(await request.read())
        replace = set_flag(request, "replace-existing-checks")
        self._catalog.register(service, checks, self._core.clock.monotonic(), replace_checks=replace)
        return web.Response()

    async def deregister(self, request: web.Request) -> web.Response:
        """Forget a service."""
        service_id = request.match_info["id"]
        try:
            self._catalog.deregister(service_id)
        except UnknownId:
            raise _unknown("service", service_id) from None
        return web.Response()

    async def maintenance(self, request: web.Request) -> web.Response:
        """Take a service out, or back in."""
        service_id, on = request.match_info["id"], required_flag(request, "enable")
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
        try:
            self._catalog.remove_check(request.match_info["id"])
        except UnknownId:
            raise _unknown("check", request.match_info["id"]) from None
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
        check_id = request.match_info["id"]
        check = self._catalog.checks.get(check_id)
        if check is None:
            raise _unknown("check", check_id)
        if not check.probe.ttl:
            raise web.HTTPInternalServerError(text=f'CheckID "{check_id}" does not have associated TTL')
        self._catalog.report(check_id, status, output, self._core.clock.monotonic())
        return web.Response()


def _unknown(kind: str, wanted: str) -> web.HTTPNotFound:
    return web.HTTPNotFound(text=f'Unknown {kind} ID "{wanted}"; is it the ID, and not the name?')
