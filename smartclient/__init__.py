"""Step 1 cached and watched, step 2 direct: call the nodes of a service, from asyncio or from threads."""

from smartclient.client import AsyncSmartClient
from smartclient.errors import (
    AccessDenied,
    BadAnswer,
    BadInput,
    CallFailed,
    ClientError,
    DeadlineExceeded,
    NoEndpoints,
    RegistryGone,
)
from smartclient.inference import Classification, Classified, Prediction
from smartclient.response import Response
from smartclient.sync import SmartClient
from smartclient.tensors import Tensors

__all__ = [
    "AccessDenied",
    "AsyncSmartClient",
    "BadAnswer",
    "BadInput",
    "CallFailed",
    "Classification",
    "Classified",
    "ClientError",
    "DeadlineExceeded",
    "NoEndpoints",
    "Prediction",
    "RegistryGone",
    "Response",
    "SmartClient",
    "Tensors",
]
