"""Which instances of a service are asked for, as one value that every directory understands the same way.

Filters narrow and never add: what is left empty does not filter. Tags are compared as Consul compares them, without
regard to case; zone, version and metadata exactly.
"""

from collections.abc import Iterator, Mapping
from typing import TypedDict

import msgspec

from registry.model import Health, Instance


class Filters(TypedDict, total=False):
    """What ``lookup`` and ``watch`` take besides the service; ``Query`` says what each means."""

    tag: str
    zone: str
    version: str
    meta: Mapping[str, str]
    passing_only: bool


class Query(msgspec.Struct, frozen=True):
    """One question. ``meta``: every pair must be in the instance's metadata; ``passing_only`` leaves out all others."""

    service: str
    tag: str = ""
    zone: str = ""
    version: str = ""
    meta: Mapping[str, str] = {}
    passing_only: bool = True

    @property
    def filters(self) -> Filters:
        """All but the service, to ask a directory with."""
        return Filters(
            tag=self.tag, zone=self.zone, version=self.version, meta=self.meta, passing_only=self.passing_only
        )

    def wants(self, instance: Instance) -> bool:
        """Whether an instance is in the answer."""
        return (
            (not self.passing_only or instance.health is Health.PASSING)
            and (not self.zone or instance.zone == self.zone)
            and (not self.version or instance.version == self.version)
            and (not self.tag or self.tag.lower() in {tag.lower() for tag in instance.tags})
            and all(instance.meta.get(key) == value for key, value in self.meta.items())
        )

    def objections(self, instance: Instance) -> Iterator[str]:
        """Say everything that keeps an instance out of the answer; nothing when it is in."""
        if self.passing_only and instance.health is not Health.PASSING:
            yield f"it is {instance.health}"
        if self.zone and instance.zone != self.zone:
            yield f"its zone is {instance.zone or 'not given'}, not {self.zone}"
        if self.version and instance.version != self.version:
            yield f"its version is {instance.version or 'not given'}, not {self.version}"
        if self.tag and self.tag.lower() not in {tag.lower() for tag in instance.tags}:
            yield f"it has no tag {self.tag}" + (f" (it has {', '.join(instance.tags)})" if instance.tags else "")
        for key, value in self.meta.items():
            if instance.meta.get(key) != value:
                yield f"its metadata {key} is {instance.meta.get(key, 'not given')}, not {value}"
