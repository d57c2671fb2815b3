"""What a client's errors are to the libraries that programs know."""

import pytest

from smartclient.adapters.names import UnusableName
from smartclient.adapters.trouble import Trouble, trouble_of
from smartclient.errors import (
    BadInput,
    CallFailed,
    ClientClosed,
    ClientError,
    DeadlineExceeded,
    NoEndpoints,
    RegistryGone,
    RegistryRefused,
    Throttled,
)
from smartclient.stats import Outcome
from smartclient.transport import TransportFailure


def after(error: ClientError, outcome: Outcome) -> ClientError:
    error.__cause__ = TransportFailure(outcome, "")
    return error


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (UnusableName("x"), Trouble.UNUSABLE),
        (BadInput("x"), Trouble.UNUSABLE),
        (NoEndpoints("x"), Trouble.UNREACHED),
        (RegistryGone("x"), Trouble.UNREACHED),
        (RegistryRefused("x"), Trouble.UNREACHED),
        (ClientClosed("x"), Trouble.UNREACHED),
        (Throttled("x"), Trouble.UNREACHED),
        (after(CallFailed("x"), Outcome.CONNECT_ERROR), Trouble.UNREACHED),
        (after(CallFailed("x"), Outcome.RESET), Trouble.BROKEN),
        (after(CallFailed("x"), Outcome.STALE), Trouble.BROKEN),
        (CallFailed("x"), Trouble.BROKEN),
        (after(CallFailed("x"), Outcome.TIMEOUT), Trouble.READ_TIMEOUT),
        (after(DeadlineExceeded("x"), Outcome.TIMEOUT), Trouble.READ_TIMEOUT),
        (after(DeadlineExceeded("x"), Outcome.RESET), Trouble.READ_TIMEOUT),
        (after(DeadlineExceeded("x"), Outcome.CONNECT_ERROR), Trouble.CONNECT_TIMEOUT),
    ],
)
def test_trouble(error: ClientError, trouble: Trouble) -> None:
    assert trouble_of(error) is trouble
