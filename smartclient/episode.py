"""Something that is the case for a while: one line in the log when it begins and one when it is over, never one a call.

What comes and goes quickly would fill a log all the same, so after an end nothing is told for ``QUIET`` seconds; what
began meanwhile and still goes on is told then. The facts stand in the words and, for programs, in the record's fields.
"""

import logging

QUIET = 60.0  # seconds


class Episode:
    """``since``: when it began, None while it is not the case. All times are monotonic seconds."""

    __slots__ = ("_begins", "_ends", "_log", "_quiet_until", "_service", "_told", "since")

    def __init__(self, log: logging.Logger, service: str, *, begins: str, ends: str) -> None:
        self.since: float | None = None
        self._log = log
        self._service = service
        self._begins = begins
        self._ends = ends
        self._told = False
        self._quiet_until = float("-inf")

    def seen(self, now: float, cause: str) -> None:
        """Note that it is the case, for the reason ``cause``."""
        if self.since is None:
            self.since = now
        if not self._told and now >= self._quiet_until:
            self._told = True
            facts = {"service": self._service, "cause": cause}
            self._log.warning("%(service)s: %(what)s (%(cause)s)", facts | {"what": self._begins}, extra=facts)

    def over(self, now: float) -> None:
        """Note that it is not the case any more."""
        if self.since is not None and self._told:
            self._quiet_until = now + QUIET
            facts = {"service": self._service, "seconds": now - self.since}
            self._log.info("%(service)s: %(what)s after %(seconds).1f s", facts | {"what": self._ends}, extra=facts)
        self.since, self._told = None, False
