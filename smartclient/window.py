"""Counting what happened in the last ten seconds, in ten slots of one second each."""

SECONDS = 10


class Window:
    """A sliding count. Adding and asking cost the same however much is counted; ``now`` is in monotonic seconds.

    Asking changes nothing, so that any thread may.
    """

    __slots__ = ("_second", "_slots", "_total")

    def __init__(self) -> None:
        self._second = 0
        self._slots = [0] * SECONDS
        self._total = 0

    def add(self, now: float) -> None:
        """Count one more."""
        second = int(now)
        if second != self._second:
            self._turn_to(second)
        self._slots[self._second % SECONDS] += 1
        self._total += 1

    def total(self, now: float) -> int:
        """What the last ten seconds hold."""
        passed = int(now) - self._second
        if passed <= 0:
            return self._total
        if passed >= SECONDS:
            return 0
        return self._total - sum(self._slots[(self._second + 1 + slot) % SECONDS] for slot in range(passed))

    def _turn_to(self, second: int) -> None:
        for passed in range(self._second + 1, min(second, self._second + SECONDS) + 1):
            self._total -= self._slots[passed % SECONDS]
            self._slots[passed % SECONDS] = 0
        self._second = max(self._second, second)
