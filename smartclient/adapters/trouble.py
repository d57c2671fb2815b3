"""What went wrong with a call, in the words that HTTP libraries have exceptions for.

Each adapter has one table from ``Trouble`` to its library's exceptions, so that a program's own ``except`` clauses
keep their meaning. A service nobody answers for is what an unknown host was: no connection. ``BadOption`` is no trouble
of a call but a mistake in the program, and is raised as it is.
"""

from enum import Enum, auto

from smartclient.adapters.names import UnusableName
from smartclient.errors import BadInput, CallFailed, ClientError, DeadlineExceeded, Throttled
from smartclient.stats import Outcome
from smartclient.transport import TransportFailure


class Trouble(Enum):
    """Why there is no answer, or no more of it."""

    UNUSABLE = auto()  # the URL, or what was to be sent
    UNREACHED = auto()  # no list, no nodes, no connection
    CONNECT_TIMEOUT = auto()  # time ran out before a connection was made
    READ_TIMEOUT = auto()  # time ran out after that
    BROKEN = auto()  # a connection was lost after that


def trouble_of(error: ClientError) -> Trouble:
    """Classify what a client raised for a call, or for the rest of an answer's body."""
    if isinstance(error, UnusableName | BadInput):
        return Trouble.UNUSABLE
    if not isinstance(error, CallFailed) or isinstance(error, Throttled):
        return Trouble.UNREACHED
    last = error.__cause__.outcome if isinstance(error.__cause__, TransportFailure) else None
    if isinstance(error, DeadlineExceeded) or last is Outcome.TIMEOUT:
        return Trouble.CONNECT_TIMEOUT if last is Outcome.CONNECT_ERROR else Trouble.READ_TIMEOUT
    return Trouble.UNREACHED if last is Outcome.CONNECT_ERROR else Trouble.BROKEN
