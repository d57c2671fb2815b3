"""The routes under ``/v1/health``, ``/v1/catalog`` and ``/v1/status``: what clients read, blocking if they ask."""

from aiohttp import web

from registry.embedded.core import Core, check_query, flag
from registry.embedded.views import (
    DATACENTER,
    catalog_entries,
    check_view,
    health_entries,
    machine_check_views,
    service_tags,
    service_view,
)


class ReadApi:
    """Handlers; ``routes`` lists them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._catalog = core.catalog

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each."""
        return [
            web.get("/v1/health/service/{name:.*}", self.health),
            web.get("/v1/health/checks/{name:.+}", self.service_checks),
            web.get("/v1/health/state/{state:.+}", self.checks_in_state),
            web.get("/v1/health/node/{node}", self.machine_checks),
            web.get("/v1/catalog/services", self.services),
            web.get("/v1/catalog/service/{name:.+}", self.instances),
            web.get("/v1/catalog/nodes", self.machines),
            web.get("/v1/catalog/node/{node}", self.machine),
            web.get("/v1/catalog/datacenters", self.datacenters),
            web.get("/v1/status/leader", self.leader),
            web.get("/v1/status/peers", self.peers),
        ]

    async def health(self, request: web.Request) -> web.Response:
        """Instances of a service with their checks."""
        name, tags, passing_only = request.match_info["name"], _tags(request), flag(request, "passing")
        if not name:
            raise web.HTTPBadRequest(text="Missing service name")
        index = await self._blocking(request, name)
        entries = health_entries(self._catalog, self._core.machine, name, tags=tags, passing_only=passing_only)
        return self._core.reply(request, entries, index=index)

    async def service_checks(self, request: web.Request) -> web.Response:
        """The checks of a service's instances."""
        name = request.match_info["name"]
        index = await self._blocking(request, name)
        records = [check for each in self._catalog.named(name) for check in self._catalog.checks_of(each.id)]
        found = [check_view(record, self._catalog, self._core.machine) for record in records]
        return self._core.reply(request, found, index=index)

    async def checks_in_state(self, request: web.Request) -> web.Response:
        """All checks with a status, or ``any``."""
        state = request.match_info["state"]
        index = await self._blocking(request)
        found = [check for check in self._all_checks() if state in {"any", check["Status"]}]
        return self._core.reply(request, found, index=index)

    async def machine_checks(self, request: web.Request) -> web.Response:
        """All checks on a machine, those of its services included."""
        index = await self._blocking(request)
        here = request.match_info["node"] == self._core.machine.name
        return self._core.reply(request, self._all_checks() if here else [], index=index)

    async def services(self, request: web.Request) -> web.Response:
        """Names and tags."""
        index = await self._blocking(request)
        return self._core.reply(request, service_tags(self._catalog), index=index)

    async def instances(self, request: web.Request) -> web.Response:
        """Instances of a service, whatever their health."""
        name = request.match_info["name"]
        index = await self._blocking(request, name)
        found = catalog_entries(self._catalog, self._core.machine, name, tags=_tags(request))
        return self._core.reply(request, found, index=index)

    async def machines(self, request: web.Request) -> web.Response:
        """The one machine."""
        index = await self._blocking(request)
        return self._core.reply(request, [self._core.machine.view()], index=index)

    async def machine(self, request: web.Request) -> web.Response:
        """A machine and its services."""
        index = await self._blocking(request)
        if request.match_info["node"] != self._core.machine.name:
            return self._core.reply(request, None, index=index)
        services = {key: service_view(each) for key, each in sorted(self._catalog.services.items())}
        return self._core.reply(request, {"Node": self._core.machine.view(), "Services": services}, index=index)

    async def datacenters(self, request: web.Request) -> web.Response:
        """The one datacenter."""
        return self._core.reply(request, [DATACENTER])

    async def leader(self, request: web.Request) -> web.Response:
        """This process."""
        return self._core.reply(request, f"{self._core.machine.address}:{self._core.port}")

    async def peers(self, request: web.Request) -> web.Response:
        """This process."""
        return self._core.reply(request, [f"{self._core.machine.address}:{self._core.port}"])

    async def _blocking(self, request: web.Request, service: str = "") -> int:
        check_query(request)

        def index_now() -> int:
            return self._catalog.index_of(service) if service else self._core.index.value

        await self._core.block(request, index_now)
        return index_now()

    def _all_checks(self) -> list[dict[str, object]]:
        of_services = [check for check in self._catalog.checks.values() if check.service_id]
        found = machine_check_views(self._catalog, self._core.machine)
        found += [check_view(check, self._catalog, self._core.machine) for check in of_services]
        return sorted(found, key=lambda check: str(check["CheckID"]))


def _tags(request: web.Request) -> list[str]:
    return [tag for tag in request.query.getall("tag", []) if tag]
