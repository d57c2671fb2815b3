"""How one attempt ended, and the running count of it per endpoint.

``Outcome`` is the one vocabulary shared by the breaker (may this node be used?), the retry rule (may this be sent
again?) and ``snapshot()``. Latency estimates are not kept here: nothing decides by them yet.
"""

from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """How an attempt ended, as far as the node's health is concerned."""

    OK = "ok"  # any answer that is not the node's fault, 4xx included
    CONNECT_ERROR = "connect_error"  # no connection: nothing was sent
    STALE = "stale"  # a kept-alive connection was closed before a byte of answer: says nothing of the node
    RESET = "reset"  # a fresh connection broke before the answer, or any one broke during it
    TIMEOUT = "timeout"  # no answer within the deadline
    OVERLOADED = "overloaded"  # 429, or 503 with Retry-After: alive, and asks to be left alone for a moment
    SERVER_ERROR = "server_error"  # any other 5xx
    CANCELLED = "cancelled"  # the caller left


class Counters(msgspec.Struct):
    """What an endpoint has been through; ``failed`` counts what the breaker counts."""

    picked: int = 0
    ok: int = 0
    failed: int = 0
    overloaded: int = 0

    def count(self, outcome: Outcome) -> None:
        """Add one ended attempt; stale connections and cancelled calls are neither good nor bad."""
        if outcome is Outcome.OK:
            self.ok += 1
        elif outcome is Outcome.OVERLOADED:
            self.overloaded += 1
        elif outcome not in NEUTRAL:
            self.failed += 1


NEUTRAL = frozenset({Outcome.STALE, Outcome.CANCELLED})
