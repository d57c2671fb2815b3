"""What a request carries through the node: its deadline, whether its client is still there, where its time went."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Ticket:
    """One request on its way: ``deadline`` in the clock's seconds, ``gone`` says whether its client has left.

    ``queued``, ``decoding`` and ``inference`` are the longest of its items, in seconds. ``admitted``: it has passed
    admission by predicted time, which happens once for a request.
    """

    deadline: float
    gone: Callable[[], bool]
    admitted: bool = False
    queued: float = 0.0
    decoding: float = 0.0
    inference: float = 0.0

    @property
    def timing(self) -> str:
        """The value of the header ``Server-Timing``, in milliseconds."""
        return (
            f"queue;dur={self.queued * 1e3:.2f}, decode;dur={self.decoding * 1e3:.2f}, "
            f"infer;dur={self.inference * 1e3:.2f}"
        )
