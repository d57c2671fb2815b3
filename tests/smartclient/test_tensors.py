"""Messages of the Open Inference Protocol, beside those of a client nobody here wrote: Triton's own."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from smartclient import AsyncSmartClient
from smartclient.call import Done
from smartclient.errors import Attempt, BadAnswer, BadInput, BadOption, CallFailed, ClientError, DeadlineExceeded
from smartclient.oip import DTYPES
from smartclient.tensors import Tensors, decode, encode
from smartclient.testing import endpoints
from smartclient.transport import Answer, Request
from tests.support import missing

ROOT = Path(__file__).parents[2]
LENGTH = "Inference-Header-Content-Length"
[NODE] = endpoints(1)
TENSORS = {
    **{name: np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype) for name, dtype in DTYPES.items() if name != "BYTES"},
    "BYTES": np.array([[b"", b"a\0b"], ["é".encode(), b"\xff\xfe"]], dtype=object),
    "SCALAR": np.array(1.5),
    "EMPTY": np.zeros((2, 0), dtype=np.float32),
    "SLICED": np.arange(24, dtype=np.int16).reshape(4, 6)[::2, ::-3],
}


def done(body: object, *, length: object = None, status: int = 200) -> Done:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = CIMultiDict({} if length is None else {LENGTH: str(length)})
    earlier = (Attempt("digits-9", "connection refused", 1.0),)
    return Done(Answer(status, headers, raw), NODE, 12.5, 11.0, earlier)


def answer(outputs: list[dict[str, object]], binary: bytes = b"", **more: object) -> Done:
    head = json.dumps({"model_name": "digits", "model_version": "3", "outputs": outputs} | more).encode()
    return done(head + binary, length=len(head))


def fp32(name: str = "y", *, shape: tuple[int, ...] = (2,), size: object = 8, **more: object) -> dict[str, object]:
    return {"name": name, "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}} | more


def refused(wrong: Done) -> ClientError:
    with pytest.raises(ClientError) as caught:
        decode(wrong, "digits")
    return caught.value


def parts(request: Request) -> tuple[dict[str, object], bytes]:
    length = int(request.headers[LENGTH])
    return json.loads(request.body[:length]), request.body[length:]


@pytest.fixture(scope="module")
def triton():
    """``tritonclient``: what it encodes, what it makes of a body, and its client over HTTP."""
    try:
        from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, aio
        from tritonclient.utils import np_to_triton_dtype
    except ImportError as error:
        missing("tritonclient", f"make setup ({error})")

    def inputs(tensors: dict[str, np.ndarray], *, binary: bool = True) -> list[InferInput]:
        made = [InferInput(name, each.shape, np_to_triton_dtype(each.dtype)) for name, each in tensors.items()]
        for each, array in zip(made, tensors.values(), strict=True):
            each.set_data_from_numpy(array, binary_data=binary)
        return made

    return SimpleNamespace(
        inputs=inputs,
        output=InferRequestedOutput,
        encode=InferenceServerClient.generate_request_body,
        decode=InferenceServerClient.parse_response_body,
        Client=aio.InferenceServerClient,
    )


def same(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("outputs", [None, ["y", "z"]])
@pytest.mark.parametrize("parameters", [None, {"priority_class": "high"}])
def test_a_request_is_what_tritons_client_sends(triton, outputs, parameters) -> None:
    ours = encode(TENSORS, model="digits", outputs=outputs, parameters=parameters)
    wanted = outputs and [triton.output(name) for name in outputs]
    body, length = triton.encode(triton.inputs(TENSORS), outputs=wanted, parameters=parameters)
    head = json.loads(body[:length])
    for each in head["inputs"]:
        each["shape"] = list(each["shape"])
    assert parts(ours) == (head, body[length:])


@pytest.mark.parametrize("outputs", [None, ["y", "z"]])
def test_a_request_in_json_is_what_tritons_client_sends(triton, outputs) -> None:
    tensors = TENSORS | {"BYTES": np.array([b"", "é".encode()], dtype=object)}
    ours = encode(tensors, model="digits", outputs=outputs, binary=False)
    wanted = outputs and [triton.output(name, binary_data=False) for name in outputs]
    body, length = triton.encode(triton.inputs(tensors, binary=False), outputs=wanted)
    assert length is None
    theirs = json.loads(body)
    theirs.get("parameters", {}).pop("binary_data_output", None)  # theirs to ask for, whatever they send
    assert json.loads(ours.body) == {key: value for key, value in theirs.items() if value}
    assert ours.headers == {"Content-Type": "application/json"}


def echoed(body: bytes, length: int) -> tuple[bytes, int]:
    """A request as the answer of a model that gives back its inputs."""
    head = json.loads(body[:length])
    again = json.dumps({"model_name": "echo", "model_version": "1", "outputs": head["inputs"]}).encode()
    return again + body[length:], len(again)


def test_tritons_client_reads_what_we_write(triton) -> None:
    request = encode(TENSORS, model="echo")
    body, length = echoed(request.body, int(request.headers[LENGTH]))
    theirs = triton.decode(body, header_length=length)
    for name, array in TENSORS.items():
        same(array, theirs.as_numpy(name))


def test_we_read_what_tritons_client_writes(triton) -> None:
    body, length = echoed(*triton.encode(triton.inputs(TENSORS)))
    ours = decode(done(body, length=length), "echo")
    assert list(ours.outputs) == list(TENSORS)
    for name, array in TENSORS.items():
        same(ours.outputs[name], array)
        assert ours.outputs[name].dtype == array.dtype


def test_both_read_plain_json_alike(triton) -> None:
    """Except for BYTES: text is ``bytes`` to us whichever way it comes, ``str`` to Triton's client."""
    numbers = {name: array for name, array in TENSORS.items() if name in DTYPES and name != "BYTES"}
    outputs = [
        {"name": name, "datatype": name, "shape": array.shape, "data": array.ravel().tolist()}
        for name, array in numbers.items()
    ]
    body = json.dumps({"model_name": "digits", "outputs": outputs}).encode()
    ours, theirs = decode(done(body), "digits"), triton.decode(body)
    for name in numbers:
        same(ours.outputs[name], theirs.as_numpy(name))


async def serve(request: web.Request) -> web.Response:
    """A model that gives back its inputs, by the letter of the protocol: ``struct`` and ``json`` only."""
    body = await request.read()
    length = int(request.headers[LENGTH])
    head, rest, at, outputs, binary = json.loads(body[:length]), body[length:], 0, [], []
    for tensor in head["inputs"]:
        raw = rest[at : at + tensor["parameters"]["binary_data_size"]]
        at += len(raw)
        if request.path.endswith("/models/plain/infer"):
            data = list(struct.unpack(f"<{len(raw) // 4}f", raw))
            outputs.append({"name": tensor["name"], "datatype": "FP32", "shape": tensor["shape"], "data": data})
        else:
            outputs.append(tensor)
            binary.append(raw)
    assert at == len(rest)
    reply = json.dumps({"model_name": "echo", "model_version": "1", "outputs": outputs}).encode()
    headers = {LENGTH: str(len(reply))} if binary else {"Content-Type": "application/json"}
    return web.Response(body=reply + b"".join(binary), headers=headers)


@pytest.mark.parametrize(("model", "names"), [("echo", list(TENSORS)), ("plain", ["FP32", "EMPTY"])])
async def test_one_server_answers_both_clients_alike(triton, fleet, model, names) -> None:
    [node] = await fleet(1, handler=serve)
    tensors = {name: TENSORS[name] for name in names}
    request = encode(tensors, model=model)
    async with AsyncSmartClient(model, f"static://{node.address}") as client:
        said = await client.request(request.method, request.target, headers=request.headers, data=request.body)
    ours = decode(Done(Answer(said.status, said.headers, said.body), NODE, 1.0, 1.0), model)
    async with triton.Client(node.address) as client:
        theirs = await client.infer(model, triton.inputs(tensors))
    for name, array in tensors.items():
        same(ours.outputs[name], theirs.as_numpy(name))
        same(ours.outputs[name], array)


@pytest.mark.parametrize(
    ("model", "version", "target"),
    [
        ("digits", "", "/v2/models/digits/infer"),
        ("digits", "3", "/v2/models/digits/versions/3/infer"),
        ("a/b?c", "é", "/v2/models/a%2Fb%3Fc/versions/%C3%A9/infer"),
    ],
)
def test_the_model_and_its_version_are_in_the_path(model: str, version: str, target: str) -> None:
    request = encode({"x": np.zeros(1)}, model=model, version=version)
    assert (request.method, request.target) == ("POST", target)
    assert request.headers["Content-Type"] == "application/octet-stream"


def test_what_json_cannot_hold_is_refused_where_json_is_wanted() -> None:
    for value in (np.array([np.nan]), np.array([np.inf], dtype=np.float16), np.array([b"\xff"])):
        assert encode({"x": value}, model="digits")
        with pytest.raises(BadInput, match=r"input 'x' has .* JSON cannot hold"):
            encode({"x": value}, model="digits", binary=False)


def test_parameters_that_json_cannot_say_are_refused() -> None:
    for parameters in ({"a": object()}, {"a": np.float32(1)}, {"\ud800": 1}):
        with pytest.raises(BadOption, match="JSON"):
            encode({"x": np.zeros(1)}, model="digits", parameters=parameters)


def test_an_answer_says_who_gave_it_and_how_it_went() -> None:
    said = answer([fp32()], struct.pack("<2f", 1, 2))
    result = decode(said, "digits")
    assert result != decode(said, "digits")  # arrays do not compare as one
    assert result.output.tolist() == [1, 2]
    assert (result.model, result.version, result.node) == ("digits", "3", "digits-1")
    assert (result.milliseconds, result.attempts) == (12.5, 2)


def test_a_server_that_says_little_is_understood() -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [1], "parameters": None, "data": [1]}
    result = decode(done({"outputs": [output], "model_version": None, "id": None, "parameters": {}}), "digits")
    assert (result.model, result.version, result.output.tolist()) == ("", "", [1])


def test_binary_and_json_outputs_may_be_mixed() -> None:
    plain = {"name": "b", "datatype": "INT8", "shape": [1], "data": [7]}
    outputs = decode(answer([fp32("a"), plain, fp32("c")], struct.pack("<4f", 1, 2, 3, 4)), "digits").outputs
    assert {name: array.tolist() for name, array in outputs.items()} == {"a": [1, 2], "b": [7], "c": [3, 4]}


def test_one_of_several_outputs_has_to_be_named() -> None:
    with pytest.raises(BadAnswer, match=r"digits-1 gave 2 outputs \('a', 'b'\), not one; see .outputs"):
        _ = decode(answer([fp32("a"), fp32("b")], b"\0" * 16), "digits").output
    with pytest.raises(BadAnswer, match="gave 0 outputs"):
        _ = decode(answer([]), "digits").output


@pytest.mark.parametrize(
    "wrong",
    [
        answer([fp32()], b"\0" * 7),
        answer([fp32()], b"\0" * 9),
        answer([fp32(size=4)], b"\0" * 4),
        answer([fp32(size=-8)], b"\0" * 8),
        answer([fp32(size=2**64)], b"\0" * 8),
        answer([fp32(size="8")], b"\0" * 8),
        answer([fp32(shape=(-2,))], b"\0" * 8),
        answer([fp32(shape=(-1, -2))], b"\0" * 8),
        answer([fp32(shape=(2**62, 2**62), size=0)]),
        answer([fp32(shape=(0,) * 65, size=0)]),
        answer([fp32(shape=(0, 10**30), size=0)]),
        answer([fp32(shape=(10**4000,))], b"\0" * 8),
        answer([fp32(datatype="BF16")], b"\0" * 8),
        answer([fp32(datatype="BYTES")], b"\xff" * 8),
        answer([fp32(datatype="BYTES", shape=(1,))], b"\0" * 4),
        answer([fp32("a"), fp32("a")], b"\0" * 16),
        answer([fp32(parameters=None)], b"\0" * 8),
        answer([fp32(parameters=None, data=[1, 2])], b"\0" * 8),
        answer([{"name": "y"}]),
        done({"outputs": [fp32()]}),
        done(b"{}" + b"\0" * 8, length=2),
        *(done({"outputs": []}, length=length) for length in ("999", "-1", "1", "", "²", "1e1", "9" * 5000)),
        done(b"<html>hello</html>"),
        done(b""),
        done({"hello": "world"}),
        done({"outputs": {}}),
        done({"error": "oh"}),
        done(b'{"outputs":[{"name":"\xff"}]}'),
        done(b'{"outputs":[{"name":' + b"[" * 100_000),
        done(b'{"x":' + b"[" * 100_000),
    ],
)
def test_a_success_that_is_no_inference_names_the_server(wrong: Done) -> None:
    error = refused(wrong)
    assert isinstance(error, BadAnswer)
    assert str(error).startswith("digits-1 (http://127.0.0.1:9001) did not answer in the Open Inference Protocol: ")
    assert str(error).endswith("is 'digits' the right service?")
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


def test_a_wrong_output_is_named() -> None:
    assert "output 'y': 1 elements are not a tensor of shape [2]" in str(refused(answer([fp32(size=4)], b"\0" * 4)))


def one_cut_or_changed(data: st.DataObject, body: bytes) -> bytes:
    at = data.draw(st.integers(0, len(body)))
    return body[:at] + data.draw(st.binary(max_size=4)) + body[at + data.draw(st.integers(0, 4)) :]


@settings(deadline=None)
@given(st.data())
def test_a_damaged_answer_is_tensors_or_a_bad_answer(data: st.DataObject) -> None:
    request = encode(TENSORS, model="echo")
    body, length = echoed(request.body, int(request.headers[LENGTH]))
    for _ in range(data.draw(st.integers(1, 3))):
        body = one_cut_or_changed(data, body)
    length = data.draw(st.just(length) | st.just(None) | st.integers(0, 2 * len(body)))
    try:
        result = decode(done(body, length=length), "digits")
    except BadAnswer:
        return
    assert isinstance(result, Tensors)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadInput), (404, BadInput), (503, CallFailed), (504, DeadlineExceeded), (302, BadAnswer)]
)
def test_a_refusal_is_passed_on_in_the_servers_words_on_one_line(status: int, kind: type) -> None:
    error = refused(done({"error": "unknown model\n  'x'" + "!" * 9999}, status=status))
    assert type(error) is kind
    assert "unknown model 'x'!" in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize("body", [b"404: Not Found", b'{"detail": "Not Found"}', b'{"error": "\xff"}', b"[" * 100_000])
def test_a_server_without_that_path_is_another_kind_of_server(body: bytes) -> None:
    assert isinstance(refused(done(body, status=404)), BadAnswer)


def in_a_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_numpy_is_loaded_by_the_first_tensors_only() -> None:
    code = "import sys, smartclient.tensors as t; print('numpy' in sys.modules); t.encode({'x': 1}, model='m')"
    assert in_a_new_process(f"{code}; print('numpy' in sys.modules)").split() == ["False", "True"]


def test_without_numpy_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["numpy"] = None
from smartclient.errors import BadOption
from smartclient.tensors import encode
try:
    encode({"x": [1]}, model="m")
except BadOption as error:
    print(error)
"""
    assert in_a_new_process(code) == "tensors need numpy: pip install 'twostep[node]'\n"
