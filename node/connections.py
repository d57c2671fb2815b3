"""How many connections a node holds and how long each may keep it waiting: the decisions, without a socket in sight.

A connection waits (its next request has not wholly arrived), is busy with one, or is idle between two. When every place
is taken, a newcomer gets that of the connection idle for longest, or else of the one that has waited longest for its
own headers. Where all are busy it gets one of a few reserved places, for a moment: there the node answers who asks
whether it is well, and tells all others to go elsewhere. Beyond those, newcomers are turned away unread.

The time for a request's headers counts from the connection's opening (a TLS handshake included) or the first byte of
the next request, not from the last byte that came: nothing is gained by sending slowly. Times are seconds.
"""

from collections import Counter, OrderedDict
from enum import Enum
from typing import Literal, Protocol

import msgspec

PRESSED = 1.0  # when all places are taken, who has been idle or waiting for this long makes room
RESERVED_FOR = 2.0  # how long a reserved place is held at most, body and answer included
RESERVED_LEAST = 0.1  # and at least, however many come
CLOSING = 2.0  # how long a connection may take to close

Reason = Literal["head", "idle", "write", "pressed", "closing", "handshake"]
REASONS: tuple[Reason, ...] = ("head", "idle", "write", "pressed", "handshake")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """``most`` connections and ``reserved`` more for probes.

    ``write_timeout``, ``write_rate``: in every such span, what is to be sent must have shrunk by that many bytes per
    second, or the peer is taken for one that does not read.
    """

    most: int = 1024
    reserved: int = 16
    header_timeout: float = 10.0
    keepalive: float = 75.0
    write_timeout: float = 30.0
    write_rate: float = 1024.0


class Door(Enum):
    """Where a newcomer goes."""

    ORDINARY = "ordinary"
    RESERVED = "reserved"
    FULL = "full"


class Peer(Protocol):
    """One connection, as far as the decisions go."""

    @property
    def unsent(self) -> int:
        """Bytes that it has not taken."""
        ...

    def cut(self, reason: Reason) -> None:
        """End it now, with a word where there is one for the reason."""
        ...


class Connections:
    """The connections of one node. Every call gets the time; ``cut`` counts the connections ended, by reason."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.refused = 0
        self.cut: Counter[Reason] = Counter()
        self._places: set[Peer] = set()
        # Since when, oldest first.
        self._reserved: OrderedDict[Peer, float] = OrderedDict()
        self._waiting: OrderedDict[Peer, float] = OrderedDict()
        self._idle: OrderedDict[Peer, float] = OrderedDict()
        self._closing: OrderedDict[Peer, float] = OrderedDict()
        # Since when, and how much was to be sent then.
        self._stalled: dict[Peer, tuple[float, int]] = {}

    @property
    def open(self) -> int:
        """How many there are."""
        return len(self._places) + len(self._reserved)

    def door(self, now: float) -> Door:
        """Where a newcomer goes; room is made for it if need be."""
        if len(self._places) < self.limits.most or self.relieve(now):
            return Door.ORDINARY
        if len(self._reserved) < self.limits.reserved or self._make_room(self._reserved, now, RESERVED_LEAST):
            return Door.RESERVED
        self.refused += 1
        return Door.FULL

    def relieve(self, now: float) -> bool:
        """End the connection that does least, if there is one that does nothing; whether there was."""
        return self._make_room(self._idle, now, PRESSED) or self._make_room(self._waiting, now, PRESSED)

    def enter(self, peer: Peer, now: float, *, reserved: bool = False) -> None:
        """It was accepted, and its first request is waited for."""
        if reserved:
            self._reserved[peer] = now
        else:
            self._places.add(peer)
            self._waiting[peer] = now

    def leave(self, peer: Peer) -> None:
        """It is closed."""
        self._forget(peer)
        self._places.discard(peer)
        self._closing.pop(peer, None)

    def failed(self, peer: Peer) -> None:
        """Its TLS handshake came to nothing."""
        if peer not in self._closing:
            self.cut["handshake"] += 1
        self.leave(peer)

    def reading(self, peer: Peer, now: float) -> None:
        """The first byte of a next request has come."""
        if self._idle.pop(peer, None) is not None:
            self._waiting[peer] = now

    def busy(self, peer: Peer) -> None:
        """The headers of a request have wholly arrived."""
        if self._waiting.pop(peer, None) is None:
            self._idle.pop(peer, None)

    def idle(self, peer: Peer, now: float) -> None:
        """It was answered."""
        if peer in self._places and peer not in self._closing:
            self._idle[peer] = now

    def stalled(self, peer: Peer, now: float) -> None:
        """It takes less than there is to send."""
        self._stalled[peer] = now, peer.unsent

    def flowing(self, peer: Peer) -> None:
        """It has taken most of it."""
        self._stalled.pop(peer, None)

    def sweep(self, now: float) -> None:
        """End whatever has had its time."""
        limits = self.limits
        self._end(self._waiting, now, limits.header_timeout, "head")
        self._end(self._idle, now, limits.keepalive, "idle")
        self._end(self._reserved, now, RESERVED_FOR, "pressed")
        for peer, (since, before) in list(self._stalled.items()):
            if now - since < limits.write_timeout:
                continue
            if before - peer.unsent < limits.write_rate * (now - since):
                self._cut(peer, "write", now)
            else:
                self._stalled[peer] = now, peer.unsent
        while self._closing and now - next(iter(self._closing.values())) >= CLOSING:
            self._closing.popitem(last=False)[0].cut("closing")

    def counts(self) -> dict[str, int]:
        """How many were turned away (``refused``) and ended by reason since the start, for a counter."""
        return {"refused": self.refused} | {reason: self.cut[reason] for reason in REASONS}

    def snapshot(self) -> dict[str, object]:
        """Open now, those in reserved places among them, and ``counts``."""
        return {"open": self.open, "reserved": len(self._reserved), "ended": self.counts()}

    def _end(self, queue: OrderedDict[Peer, float], now: float, after: float, reason: Reason) -> None:
        while queue and now - next(iter(queue.values())) >= after:
            self._cut(next(iter(queue)), reason, now)

    def _make_room(self, queue: OrderedDict[Peer, float], now: float, after: float) -> bool:
        if not queue or now - next(iter(queue.values())) < after:
            return False
        peer = next(iter(queue))
        self._cut(peer, "pressed", now)
        self._places.discard(peer)  # at once, for somebody else is to have its place
        return True

    def _cut(self, peer: Peer, reason: Reason, now: float) -> None:
        self._forget(peer)
        self._closing[peer] = now
        self.cut[reason] += 1
        peer.cut(reason)

    def _forget(self, peer: Peer) -> None:
        self._reserved.pop(peer, None)
        self._waiting.pop(peer, None)
        self._idle.pop(peer, None)
        self._stalled.pop(peer, None)
