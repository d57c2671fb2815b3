"""The reader's half of the stream: events in, the list out. Pure.

A list is whole only when the last part of a snapshot has come; until then the list before it stands.
"""

from bisect import bisect_left

from registry.errors import InvalidAnswer
from registry.lookup.wire import Change, Event, Heartbeat, Part, Resync, to_instance
from registry.model import Instance


class Replica:
    """What a reader holds of one service. ``index`` 0: nothing yet; ``stale_for`` is the service's own word, in s."""

    def __init__(self, service: str) -> None:
        self.index = 0
        self.stale_for = 0.0
        self._service = service
        self._ids: list[str] = []
        self._instances: list[Instance] = []
        self._pending: list[Instance] = []
        self._parts = 0

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The list, ordered by id."""
        return tuple(self._instances)

    def apply(self, event: Event) -> bool:
        """Take an event in; whether the list may be another one now. Raises ``InvalidAnswer`` for one out of order."""
        match event:
            case Part():
                return self._part(event)
            case Change():
                self._change(event)
                return True
            case Heartbeat():
                self.stale_for = event.stale_for
            case Resync():
                self._pending, self._parts = [], 0
        return False

    def _part(self, event: Part) -> bool:
        if event.part == 1:
            self._pending, self._parts = [], 0
        if event.part != self._parts + 1 or event.part > event.parts:
            raise InvalidAnswer(f"the look-up service sent part {event.part} of {event.parts} out of order")
        self._parts = event.part
        self._pending += [to_instance(row, self._service) for row in event.instances]
        if event.part < event.parts:
            return False
        found = {each.id: each for each in self._pending}
        self._ids = sorted(found)
        self._instances = [found[each] for each in self._ids]
        self._pending, self._parts = [], 0
        self.index, self.stale_for = event.index, event.stale_for
        return True

    def _change(self, event: Change) -> None:
        if self._parts or not self.index:
            raise InvalidAnswer("the look-up service sent a delta before the list was whole")
        for gone in event.removed:
            at = bisect_left(self._ids, gone)
            if self._ids[at : at + 1] == [gone]:
                del self._ids[at], self._instances[at]
        for row in event.changed:
            at = bisect_left(self._ids, row.id)
            if self._ids[at : at + 1] == [row.id]:
                self._instances[at] = to_instance(row, self._service)
            else:
                self._ids.insert(at, row.id)
                self._instances.insert(at, to_instance(row, self._service))
        self.index = event.index
