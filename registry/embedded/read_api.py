"""The routes under ``/v1/health``, ``/v1/catalog`` and ``/v1/status``: what clients read, blocking if they ask.

``?near`` sorts by distance: here is one machine, so any order is right.
"""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from registry.embedded.core import Core, check_query, flag, named, wanted
from registry.embedded.fields import CHECK, HEALTH, INSTANCE, NODE, SERVICE
from registry.embedded.filtering import Fields
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
            web.get(path, handler, allow_head=False)
            for path, handler in {
                "/v1/health/service/{name:.*}": self.health,
                "/v1/health/checks/{name:.*}": self.service_checks,
                "/v1/health/state/{state:.*}": self.checks_in_state,
                "/v1/health/node/{node:.*}": self.machine_checks,
                "/v1/catalog/services": self.services,
                "/v1/catalog/service/{name:.*}": self.instances,
                "/v1/catalog/nodes": self.machines,
                "/v1/catalog/node/{node:.*}": self.machine,
                "/v1/catalog/datacenters": self.datacenters,
                "/v1/status/leader": self.leader,
                "/v1/status/peers": self.peers,
            }.items()
        ]

    async def health(self, request: web.Request) -> web.Response:
        """Instances of a service with their checks."""
        name, passing_only = named(request, "name", "service name"), flag(request, "passing")
        return await self._answer(
            request,
            HEALTH,
            lambda: health_entries(
                self._catalog, self._core.machine, name, tags=_tags(request), passing_only=passing_only
            ),
            service=name,
        )

    async def service_checks(self, request: web.Request) -> web.Response:
        """The checks of a service's instances."""
        name = named(request, "name", "service name")

        def found() -> list[dict[str, Any]]:
            records = [check for each in self._catalog.named(name) for check in self._catalog.checks_of(each.id)]
            return [check_view(record, self._catalog, self._core.machine) for record in records]

        return await self._answer(request, CHECK, found, service=name)

    async def checks_in_state(self, request: web.Request) -> web.Response:
        """All checks with a status, or ``any``."""
        state = named(request, "state", "check state")
        return await self._answer(
            request,
            CHECK,
            lambda: [check for check in self._all_checks() if state in {"any", check["Status"]}],
        )

    async def machine_checks(self, request: web.Request) -> web.Response:
        """All checks on a machine, those of its services included."""
        here = named(request, "node", "node name") == self._core.machine.name
        return await self._answer(request, CHECK, lambda: self._all_checks() if here else [])

    async def services(self, request: web.Request) -> web.Response:
        """Names and tags."""
        index = await self._blocking(request)
        return self._core.reply(request, service_tags(self._catalog) if self._here(request) else {}, index=index)

    async def instances(self, request: web.Request) -> web.Response:
        """Instances of a service, whatever their health."""
        name = named(request, "name", "service name")
        return await self._answer(
            request,
            INSTANCE,
            lambda: catalog_entries(self._catalog, self._core.machine, name, tags=_tags(request)),
            service=name,
        )

    async def machines(self, request: web.Request) -> web.Response:
        """The one machine."""
        return await self._answer(request, NODE, lambda: [self._core.machine.view()])

    async def machine(self, request: web.Request) -> web.Response:
        """A machine and its services."""
        node, holds = named(request, "node", "node name"), wanted(request, SERVICE)
        index = await self._blocking(request)
        if node != self._core.machine.name:
            return self._core.reply(request, None, index=index)
        views = ((key, service_view(each)) for key, each in sorted(self._catalog.services.items()))
        services = {key: view for key, view in views if holds(view)}
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

    async def _answer(
        self, request: web.Request, shape: Fields, read: Callable[[], list[dict[str, Any]]], *, service: str = ""
    ) -> web.Response:
        """Block, read, and leave out what ``filter`` and ``node-meta`` do."""
        holds = wanted(request, shape)
        index = await self._blocking(request, service)
        found = [each for each in read() if holds(each)] if self._here(request) else []
        return self._core.reply(request, found, index=index)

    async def _blocking(self, request: web.Request, service: str = "") -> int:
        check_query(request)

        def index_now() -> int:
            return self._catalog.index_of(service) if service else self._catalog.changed_at

        await self._core.block(request, index_now)
        return index_now()

    def _here(self, request: web.Request) -> bool:
        return self._core.machine.has(request.query.getall("node-meta", []))

    def _all_checks(self) -> list[dict[str, Any]]:
        of_services = [check for check in self._catalog.checks.values() if check.service_id]
        found = machine_check_views(self._catalog, self._core.machine)
        found += [check_view(check, self._catalog, self._core.machine) for check in of_services]
        return sorted(found, key=lambda check: str(check["CheckID"]))


def _tags(request: web.Request) -> list[str]:
    return [tag for tag in request.query.getall("tag", []) if tag]
