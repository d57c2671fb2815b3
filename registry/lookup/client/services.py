"""Several look-up services as one: whose turn it is, and the next one when one does not answer."""

import random
from collections.abc import Sequence

from registry.errors import ConfigurationError, InvalidAnswer, PermissionDenied, RegistryError, RegistryUnavailable
from registry.lookup.client.address import LookupSettings
from registry.lookup.client.http import ANSWER_WITHIN, LookupHttp, LookupStream
from registry.lookup.client.rotation import Rotation
from registry.lookup.wire import ROWS_PER_LINE, Row, to_instance
from registry.model import Instance, Snapshot
from registry.query import Query
from registry.timing import Clock

# For one question to all addresses together.
LOOKUP_WITHIN = 15.0
_NEXT_STEP = {
    PermissionDenied: "check the token in TWOSTEP_LOOKUP_TOKEN or TWOSTEP_LOOKUP_TOKEN_FILE",
    ConfigurationError: "check the question, or what the look-up service is started with",
    InvalidAnswer: "is the address right?",
    RegistryUnavailable: "check the address, or start one with: twostep registry lookup",
}


class LookupServices:
    """All the addresses of ``settings``; ``close`` it in the loop it was used in."""

    def __init__(self, settings: LookupSettings, *, clock: Clock, rng: random.Random) -> None:
        self.source = settings.source
        self._http = LookupHttp(settings)
        self._rotation = Rotation(settings.addresses, rng)
        self._clock = clock

    async def lookup(self, query: Query, *, last: str = "") -> Snapshot:
        """Ask each address at most once until one answers, ``last`` last. Raises ``RegistryError``."""
        begun = self._clock.monotonic()
        errors: list[RegistryError] = []
        for address in self._rotation.order(begun, last=last):
            left = begun + LOOKUP_WITHIN - self._clock.monotonic()
            if left <= 0:
                break
            try:
                listing, age = await self._http.listing(address, query, within=min(left, ANSWER_WITHIN))
            except RegistryError as error:
                self._rotation.failed(address, self._clock.monotonic())
                errors.append(error)
                continue
            self._rotation.answered(address)
            return Snapshot(
                service=query.service,
                index=listing.index,
                instances=await self._instances(listing.instances, query.service),
                fetched_at=self._clock.time(),
                stale_for=listing.stale_for + age,
                source=self.source,
            )
        raise together(errors, self.source)

    async def stream(self, query: Query) -> LookupStream:
        """Open a stream at the next address. Raises ``RegistryError``."""
        address = self._rotation.order(self._clock.monotonic())[0]
        try:
            return await self._http.stream(address, query)
        except RegistryError as error:
            self._rotation.failed(address, self._clock.monotonic())
            raise together([error], self.source) from error

    def lost(self, address: str) -> None:
        """A stream from here has ended: ask others first for a while."""
        self._rotation.failed(address, self._clock.monotonic())

    async def close(self) -> None:
        """Give connections back."""
        await self._http.close()

    async def _instances(self, rows: Sequence[Row], service: str) -> tuple[Instance, ...]:
        found: dict[str, Instance] = {}
        for start in range(0, len(rows), ROWS_PER_LINE):
            if start:
                await self._clock.sleep(0)  # others want the loop too
            found |= {row.id: to_instance(row, service) for row in rows[start : start + ROWS_PER_LINE]}
        return tuple(found[each] for each in sorted(found))


def together(errors: Sequence[RegistryError], source: str) -> RegistryError:
    """One error for what every address said: one that may pass before one that will not, and the next step."""
    worst = next((each for each in errors if each.retryable), errors[0])
    said = "; ".join(dict.fromkeys(map(str, errors)))
    where = "" if len(errors) == 1 else f"{source}: "
    return type(worst)(f"{where}{said}; {_NEXT_STEP[type(worst)]}")
