"""``/v1/models/…``: TensorFlow Serving's REST interface, and KServe's V1 protocol, which asks the same way.

https://github.com/tensorflow/serving, g3doc/api_rest.md. A request is answered whole or refused: an image file that
cannot be read fails it with the number of the instance, as a bad number does. Bodies of some size are taken apart in a
thread, one at a time: what that holds is then bounded for the whole node, and the loop goes on meanwhile.
"""

import asyncio

import msgspec
import numpy as np
from aiohttp import web

from node.errors import BadImage, BadRequest, EmptyBody, TooLarge
from node.intake import Intake
from node.protocols.tfserving import answer, describe
from node.protocols.tfserving.elements import weigh
from node.protocols.tfserving.examples import examples
from node.protocols.tfserving.request import Batch, predict
from node.runtimes.base import Signature
from node.served import Served
from node.tensors import Tensors, TensorSpec, rows
from node.ticket import Ticket
from node.together import end_all

# Rows of one request: some hundred batches, whose wait is known before the first begins.
MOST_ROWS = 4096
# Bytes of a body, and numbers of an answer, that are read and written faster than a thread is asked to.
_IN_PLACE = 32 * 1024
_FEW = 8 * 1024
_WHICH = ("", "/versions/{version}", "/labels/{label}")


class TensorFlowServing:
    """The routes under ``/v1`` of one node."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._reading = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """See ``aiohttp.web``."""
        found = [web.get("/", self._alive), web.get("/v1/models", self._models)]
        for which in _WHICH:
            model = "/v1/models/{model:[^{}/:]+}" + which
            found += [
                web.get(model, self._status),
                web.get(f"{model}/metadata", self._metadata),
                web.post(f"{model}:predict", self._predict),
                web.post(f"{model}:classify", self._classify),
                web.post(f"{model}:regress", self._regress),
            ]
        return found

    async def _alive(self, _: web.Request) -> web.Response:
        """KServe's V1 clients ask so whether a server is there."""
        return _json({"status": "alive"})

    async def _models(self, request: web.Request) -> web.Response:
        self._intake.check_reader(request)
        return _json(describe.Models(self._intake.repository.names))

    async def _status(self, request: web.Request) -> web.Response:
        self._intake.check_reader(request)
        name, version, label = _which(request)
        return _json(describe.status(self._intake.repository.entry(name), version=version, label=label))

    async def _metadata(self, request: web.Request) -> web.Response:
        self._intake.check_reader(request)
        name, version, label = _which(request)
        served = self._intake.repository.find(name, version=version, label=label)
        return _json(describe.metadata(served.name, served.version, served.signature))

    async def _predict(self, request: web.Request) -> web.Response:
        return await self._work(request, "predict")

    async def _classify(self, request: web.Request) -> web.Response:
        return await self._work(request, "classify")

    async def _regress(self, request: web.Request) -> web.Response:
        return await self._work(request, "regress")

    async def _work(self, request: web.Request, method: str) -> web.Response:
        name, version, label = _which(request)
        with (
            self._intake.admit(request) as visit,
            self._intake.model(visit, name, version=version, label=label) as model,
        ):
            body = await visit.body.whole()
            if len(body) <= _IN_PLACE:
                batch = _read(method, body, model.signature)
            else:
                async with self._reading:
                    batch = await asyncio.to_thread(_read, method, body, model.signature)
            del body
            if batch.files:
                outputs = await _pictures(model, batch.files, visit.ticket)
            else:
                outputs = await model.infer(batch.tensors, visit.ticket)
            if sum(array.size for array in outputs.values()) <= _FEW:
                data = _write(method, model, outputs, by_row=batch.by_row)
            else:
                data = await asyncio.to_thread(_write, method, model, outputs, by_row=batch.by_row)
        return web.Response(body=data, content_type="application/json")


def _read(method: str, body: bytearray, signature: Signature) -> Batch:
    weigh(body)
    if method == "predict":
        batch = predict(body, signature)
    else:
        _answering(method, signature)
        batch = examples(body, signature, method)
    if batch.tensors and (count := rows(batch.tensors)) > MOST_ROWS:
        raise TooLarge(f"{count:,} rows are more than the {MOST_ROWS:,} this node takes at once; send several requests")
    return batch


def _write(method: str, model: Served, outputs: Tensors, *, by_row: bool) -> bytes:
    if method == "predict":
        return answer.predictions(outputs, by_row=by_row)
    wanted = outputs[_answering(method, model.signature).name]
    if method == "classify":
        return answer.classes(wanted, model.labels or [""] * wanted.shape[1])
    return answer.values(wanted)


def _answering(method: str, signature: Signature) -> TensorSpec:
    """Return the output that answers ``classify`` or ``regress``. Raises ``BadRequest`` where there is none."""
    if method == "classify":
        if signature.scores is None:
            raise BadRequest("this model does not give one row of scores for each item; ask it to :predict")
        return signature.scores
    first = signature.outputs[0]
    if len(signature.outputs) > 1 or first.shape not in ((), (1,)) or first.datatype in ("BOOL", "BYTES"):
        raise BadRequest("this model does not give one number for each item; ask it to :predict")
    return first


async def _pictures(model: Served, files: list[bytes], ticket: Ticket) -> Tensors:
    """Decode image files and run each as soon as it is decoded; the outputs are in the files' order."""
    name = model.signature.inputs[0].name

    async def one(number: int, data: bytes) -> Tensors:
        try:
            image = await model.decode(data, ticket)
        except (BadImage, EmptyBody) as error:
            raise BadRequest(f"image {number}: {error}") from error
        return await model.infer({name: image}, ticket)

    tasks = [asyncio.ensure_future(one(number, data)) for number, data in enumerate(files)]
    try:
        parts = await asyncio.gather(*tasks)
    finally:
        await end_all(tasks)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _which(request: web.Request) -> tuple[str, str, str]:
    match = request.match_info
    return match["model"], match.get("version", ""), match.get("label", "")


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
