"""``/v2/…``: the Open Inference Protocol's routes, with Triton's extensions.

Bodies of some size are taken apart in a thread, one at a time: what that holds is then bounded for the whole node, and
the loop goes on meanwhile. An answer is compressed only for a client that names one encoding, as Triton's client does
when told to: those that every HTTP library lists unasked would cost a core more than the network saves.
"""

import asyncio

import msgspec
from aiohttp import web

from node.errors import Draining, Overloaded
from node.intake import Intake
from node.lifecycle import Lifecycle
from node.protocols.oip import describe
from node.protocols.oip.answer import Answer, build
from node.protocols.oip.inputs import JSON_LENGTH, Limits
from node.protocols.oip.request import InferRequest, json_length, parse
from node.served import Served
from node.tensors import Tensors

# Rows of one request: some hundred batches, whose wait is known before the first begins.
MOST_ROWS = 4096
# Bytes of JSON or of BYTES, and elements of an answer, that are read and written faster than a thread is asked to.
_IN_PLACE = 32 * 1024
_FEW = 8 * 1024
# Less than this is not worth compressing, in bytes.
_SMALL = 1024
_ENCODINGS = {"gzip": web.ContentCoding.gzip, "deflate": web.ContentCoding.deflate}
_MODEL = "/v2/models/{model}"
_WHICH = (_MODEL, _MODEL + "/versions/{version}")


class OpenInference:
    """The routes under ``/v2`` that use a node; ``version`` is the program's."""

    def __init__(self, intake: Intake, lifecycle: Lifecycle, version: str) -> None:
        self._intake = intake
        self._lifecycle = lifecycle
        self._version = version
        self._limits = Limits(rows=MOST_ROWS, bytes=intake.max_body)
        self._reading = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """See ``aiohttp.web``."""
        found = [
            web.get("/v2", self._server),
            web.get("/v2/", self._server),
            web.get("/v2/health/live", self._live),
            web.get("/v2/health/ready", self._ready),
            web.get("/v2/models/stats", self._all_stats),
        ]
        for which in _WHICH:
            found += [
                web.get(which, self._metadata),
                web.get(which + "/ready", self._model_ready),
                web.get(which + "/config", self._config),
                web.get(which + "/stats", self._stats),
                web.post(which + "/infer", self._infer),
            ]
        return found

    async def _server(self, _: web.Request) -> web.Response:
        return answer_json(describe.server(self._version))

    async def _live(self, _: web.Request) -> web.Response:
        return answer_json({"live": True})

    async def _ready(self, _: web.Request) -> web.Response:
        if self._lifecycle.leaving:
            raise Draining(f"this node is {self._lifecycle.state}; ask another")
        if not self._lifecycle.ready:
            raise Overloaded(f"this node is {self._lifecycle.state}; ask another or come back")
        return answer_json({"ready": True})

    async def _model_ready(self, request: web.Request) -> web.Response:
        served = self._find(request)
        return answer_json({"name": served.name, "ready": True})

    async def _metadata(self, request: web.Request) -> web.Response:
        served = self._find(request)
        versions = [each.number for each in self._intake.repository.entry(served.name).ready()]
        return answer_json(describe.model(served.name, versions, served.runtime.name, served.signature))

    async def _config(self, request: web.Request) -> web.Response:
        served = self._find(request)
        said = describe.config(served.name, served.runtime.name, served.signature, max_batch=served.batcher.max_batch)
        return answer_json(said)

    async def _stats(self, request: web.Request) -> web.Response:
        served = self._find(request)
        if "version" in request.match_info:
            return _stats([served])
        ready = self._intake.repository.entry(served.name).ready()
        return _stats([each.served for each in ready if each.served is not None])

    async def _all_stats(self, request: web.Request) -> web.Response:
        self._intake.check_reader(request)
        return _stats(self._intake.repository.serving())

    async def _infer(self, request: web.Request) -> web.Response:
        name, version = _which(request)
        with self._intake.admit(request) as visit, self._intake.model(visit, name, version=version) as served:
            body = await visit.body.whole()
            length = json_length(request.headers.get(JSON_LENGTH), len(body))
            asked = await self._parse(body, length, served)
            del body
            if asked.timeout is not None:
                self._intake.shorten(visit, asked.timeout)
            outputs = await served.infer(asked.inputs, visit.ticket)
            answer = await _build(asked, outputs, served)
        return _response(answer, request.headers.get("Accept-Encoding", ""))

    async def _parse(self, body: bytearray, length: int | None, served: Served) -> InferRequest:
        text = len(body) if length is None or _has_bytes(served) else length
        if text <= _IN_PLACE:
            return parse(body, length, served.signature, self._limits)
        async with self._reading:
            return await asyncio.to_thread(parse, body, length, served.signature, self._limits)

    def _find(self, request: web.Request) -> Served:
        self._intake.check_reader(request)
        name, version = _which(request)
        return self._intake.repository.find(name, version=version)


def answer_json(body: object) -> web.Response:
    """Return a 200 whose content type is what KServe's client insists on, without a charset."""
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def _build(asked: InferRequest, outputs: Tensors, served: Served) -> Answer:
    scores = served.signature.scores
    labels = {} if scores is None else {scores.name: served.labels}

    def work() -> Answer:
        return build(asked, outputs, model=served.name, version=served.version, labels=labels)

    text = sum(outputs[each.name].size for each in asked.outputs if not each.binary or each.classes)
    return work() if text <= _FEW else await asyncio.to_thread(work)


def _response(answer: Answer, accepted: str) -> web.Response:
    if answer.json_length is None:
        response = web.Response(body=answer.body, content_type="application/json", zlib_executor_size=_IN_PLACE)
    else:
        headers = {JSON_LENGTH: str(answer.json_length)}
        response = web.Response(body=answer.body, headers=headers, zlib_executor_size=_IN_PLACE)
    encoding = _ENCODINGS.get(accepted.strip().lower())
    if encoding is not None and len(answer.body) >= _SMALL:
        response.enable_compression(encoding)
    return response


def _stats(versions: list[Served]) -> web.Response:
    return answer_json({"model_stats": [describe.stats(each.name, each.version, each.tally) for each in versions]})


def _has_bytes(served: Served) -> bool:
    return any(spec.datatype == "BYTES" for spec in served.signature.inputs)


def _which(request: web.Request) -> tuple[str, str]:
    match = request.match_info
    return match["model"], match.get("version", "")
