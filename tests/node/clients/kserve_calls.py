"""KServe's own inference client against a node; run by the Python of its environment: ``kserve_calls.py URL``.

The node serves ``digits`` (the scripted runtime) at the first address and ``echo`` (FP32) at the second. Exits with 1
and a line for every mismatch.
"""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

LEVELS = (60, 250)
PIXELS = np.stack([np.full((8, 8, 1), level, np.uint8) for level in LEVELS])
wrong: list[str] = []


def check(what: str, given: object, wanted: object) -> None:
    """Note a mismatch."""
    if given != wanted:
        wrong.append(f"{what}: {given!r}, not {wanted!r}")


async def refused(what: str, call, status: int, words: str) -> None:
    """Note a call that is not refused with this status and with these words of the node."""
    try:
        answer = await call
    except httpx.HTTPStatusError as error:
        check(f"{what}: status", error.response.status_code, status)
        check(f"{what}: {words!r} in {str(error)!r}", words in str(error), True)
    else:
        wrong.append(f"{what}: answered {answer!r}")


def asked(name: str, values: np.ndarray, datatype: str, *, binary: bool, outputs: tuple[str, ...] = ()) -> InferRequest:
    """Build a request as KServe's documentation does."""
    one = InferInput(name=name, shape=list(values.shape), datatype=datatype)
    one.set_data_from_numpy(values, binary_data=binary)
    wanted = [RequestedOutput(each, parameters={"binary_data": binary}) for each in outputs]
    return InferRequest(model_name="", infer_inputs=[one], request_id="7", request_outputs=wanted)


async def v2(digits: str, echo: str) -> None:
    """The Open Inference Protocol."""
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        check("v2 live", await client.is_server_live(digits), True)
        check("v2 ready", await client.is_server_ready(digits), True)
        check("v2 model ready", await client.is_model_ready(digits, "digits"), True)
        check("v2 other model ready", await client.is_model_ready(digits, "other"), False)
        for binary in (False, True):
            for outputs in ((), ("scores",)):
                request = asked("pixels", PIXELS, "UINT8", binary=binary, outputs=outputs)
                answer = await client.infer(digits, request, model_name="digits")
                check("v2 id", answer.id, "7")
                check("v2 model", answer.model_name, "digits")
                scores = answer.outputs[0].as_numpy()
                check("v2 scores", (scores.dtype, scores.shape), (np.float32, (2, 10)))
                check("v2 classes", scores.argmax(axis=1).tolist(), [2, 9])
        values = np.array([[1.5, -2.0], [0.1, 3e38]], np.float32)
        answer = await client.infer(echo, asked("x_FP32", values, "FP32", binary=True), model_name="echo")
        check("v2 echo", answer.outputs[0].as_numpy().tolist(), values.tolist())
        as_dict = {"inputs": [{"name": "x_FP32", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2]]}]}
        answer = await client.infer(echo, as_dict, model_name="echo")
        check("v2 echo of a dict", answer.outputs[0].data, [1.0, 2.0])
        wrong_type = asked("x_FP32", values.astype(np.float64), "FP64", binary=True)
        await refused("v2 wrong type", client.infer(echo, wrong_type, model_name="echo"), 400, "'x_FP32' is FP32")
        await refused("v2 other model", client.infer(echo, as_dict, model_name="other"), 404, "no model 'other'")


async def v1(digits: str, echo: str) -> None:
    """TensorFlow Serving's way of asking, which KServe calls its V1 protocol."""
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        check("v1 live", await client.is_server_live(digits), True)
        check("v1 model ready", await client.is_model_ready(digits, "digits"), True)
        answer = await client.infer(digits, {"instances": PIXELS.tolist()}, model_name="digits")
        check("v1 classes", [int(np.argmax(row)) for row in answer["predictions"]], [2, 9])
        answer = await client.infer(echo, {"instances": [[1.0, 2.0], [3.0, 4.0]]}, model_name="echo")
        check("v1 echo", answer, {"predictions": [[1.0, 2.0], [3.0, 4.0]]})
        await refused("v1 no instances", client.infer(echo, {"some": 1}, model_name="echo"), 400, "instances")
        await refused("v1 other model", client.infer(echo, {"instances": [1]}, model_name="other"), 404, "other")
        await refused("v1 other model ready", client.is_model_ready(echo, "other"), 404, "other")


async def main() -> None:
    """Run both protocols."""
    await v2(*sys.argv[1:3])
    await v1(*sys.argv[1:3])


asyncio.run(main())
if wrong:
    sys.exit("\n".join(wrong))
