"""What a model calls its inputs, for a caller who has one array and no name for it.

The Open Inference Protocol knows tensors by name, and its model metadata (``GET v2/models/M``) tells the names. A node
is asked once per model; a model with several inputs cannot be run on a single array.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import msgspec

from smartclient.call import Done
from smartclient.errors import BadInput
from smartclient.refusals import UNREADABLE, foreign, refused
from smartclient.transport import Request

PROTOCOL = "in the Open Inference Protocol"
UNNAMED = "input"
"""What a sole input is called where a server tells no names; such servers mostly do not look at it."""


class _Named(msgspec.Struct):
    name: str


class _Model(msgspec.Struct):
    name: str
    inputs: tuple[_Named, ...] | None = None


_MODEL = msgspec.json.Decoder(_Model)


class InputNames:
    """What the sole input of each model is called: asked of a node once, kept until it proves wrong."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._known: dict[tuple[str, str], str] = {}

    async def of(self, model: str, version: str, ask: Callable[[Request], Awaitable[Done]]) -> str:
        """Return the name, with ``ask`` where it is not known. Raises ``BadInput`` for a model with several inputs."""
        known = self._known.get((model, version))
        if known is None:
            known = _sole_input(await ask(Request(method="GET", target=path_of(model, version))), self._service)
            self._known[model, version] = known
        return known

    def forget(self, model: str, version: str) -> None:
        """Ask again next time: a node refused the input, perhaps because its model is another one by now."""
        self._known.pop((model, version), None)


def path_of(model: str, version: str) -> str:
    """Return the path of a model, of one version when given."""
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _sole_input(done: Done, service: str) -> str:
    if not 200 <= done.answer.status < 300:
        raise refused(done, service, PROTOCOL)
    try:
        model = _MODEL.decode(done.answer.body)
    except UNREADABLE as error:
        raise foreign(done, service, PROTOCOL, str(error)) from error
    names = [each.name for each in model.inputs or ()]
    if len(names) > 1:
        raise BadInput(
            f"model {model.name!r} has {len(names)} inputs ({', '.join(map(repr, names))}); give arrays by name"
        )
    return names[0] if names else UNNAMED
