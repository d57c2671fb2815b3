"""Triton's own Python client, blocking and asyncio, against a node: everything it can ask over HTTP."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from node.repository import Model
from node.tensors import DTYPES
from tests.support import missing

try:
    import tritonclient.http as triton
    from tritonclient.http import aio
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype
except ImportError as error:
    missing("tritonclient", f"make setup ({error})")

TENSORS = {
    f"x_{datatype}": np.array([[0, 1, 1], [1, 0, 1]], dtype)
    if datatype != "BYTES"
    else np.array([[b"", b"a\0b", b"x"], ["é".encode(), b"\xff\xfe", b"yz"]], object)
    for datatype, dtype in DTYPES.items()
}
ADMIN = {"Authorization": "Bearer steer"}


def address(node) -> str:
    return node.url.removeprefix("http://")


def inputs(tensors, *, binary=True):
    made = []
    for name, array in tensors.items():
        one = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(array, binary_data=binary)
        made.append(one)
    return made


@pytest.fixture
def steering(tmp_path):
    (tmp_path / "admin").write_text("steer\n")
    return {"admin_token_file": tmp_path / "admin"}


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request):
    """Give a client's methods as coroutines, whichever of the two it is."""

    class Blocking:
        """Triton's blocking client with each call in one thread of its own, where its gevent hub lives."""

        def __init__(self, node):
            self._pool = ThreadPoolExecutor(1)
            self._node = node

        async def __aenter__(self):
            self._client = await self._run(triton.InferenceServerClient, address(self._node))
            return self

        async def __aexit__(self, *_):
            await self._run(self._client.close)
            self._pool.shutdown()

        def __getattr__(self, name):
            return lambda *args, **kwargs: self._run(getattr(self._client, name), *args, **kwargs)

        async def _run(self, call, *args, **kwargs):
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: call(*args, **kwargs))

    return Blocking if request.param == "blocking" else lambda node: aio.InferenceServerClient(address(node))


async def refused(call) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as caught:
        await call
    return caught.value


async def test_health_of_server_and_model(node, connect):
    async with connect(node) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("digits")
        assert await client.is_model_ready("digits", "1")
        assert not await client.is_model_ready("digits", "2")
        assert not await client.is_model_ready("other")


async def test_what_the_server_says_of_itself_and_its_models(node, connect):
    async with connect(node) as client:
        assert "binary_tensor_data" in (await client.get_server_metadata())["extensions"]
        metadata = await client.get_model_metadata("digits", "1")
        assert metadata["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
        config = await client.get_model_config("digits")
        assert (config["max_batch_size"], config["output"][0]["data_type"]) == (32, "TYPE_FP32")
        assert (await client.get_inference_statistics())["model_stats"][0]["name"] == "digits"
        error = await refused(client.get_model_metadata("other"))
        assert (error.status(), "no model 'other'" in error.message()) == ("404", True)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
async def test_every_datatype_comes_back_as_it_went(serve_echo, connect, binary_in, binary_out):
    node = await serve_echo()
    tensors = dict(TENSORS)
    if not (binary_in and binary_out is not False):  # JSON is text
        tensors["x_BYTES"] = np.array([[b"", b"abc", b"x"], ["é".encode(), b"_", b"yz"]], object)
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(f"y_{each}", binary_data=binary_out) for each in DTYPES]
    async with connect(node) as client:
        result = await client.infer("echo", inputs(tensors, binary=binary_in), outputs=outputs, request_id="42")
    assert result.get_response()["id"] == "42"
    assert (result.get_response()["model_name"], result.get_response()["model_version"]) == ("echo", "1")
    for name, array in tensors.items():
        given = result.as_numpy(name.replace("x_", "y_"))
        as_text = binary_out is False and name == "x_BYTES"
        assert given.tolist() == (
            [[each.decode() for each in row] for row in array.tolist()] if as_text else array.tolist()
        )
        assert given.dtype == array.dtype


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
async def test_compressed_both_ways(serve_echo, connect, sent, wanted):
    node = await serve_echo("FP32")
    values = np.arange(20_000, dtype=np.float32).reshape(2, -1)
    compression = {"request_compression_algorithm": sent, "response_compression_algorithm": wanted}
    async with connect(node) as client:
        for outputs in (None, [triton.InferRequestedOutput("y_FP32", binary_data=False)]):
            result = await client.infer("echo", inputs({"x_FP32": values}), outputs=outputs, **compression)
            np.testing.assert_array_equal(result.as_numpy("y_FP32"), values)


@pytest.mark.parametrize("binary", [True, False])
async def test_classes_with_their_labels(node, connect, binary):
    pixels = np.stack([np.full((8, 8, 1), level, np.uint8) for level in (60, 250)])
    outputs = [triton.InferRequestedOutput("scores", binary_data=binary, class_count=2)]
    async with connect(node) as client:
        classes = (await client.infer("digits", inputs({"pixels": pixels}), outputs=outputs)).as_numpy("scores")
    wanted = [["0.91:2:2", "0.01:0:0"], ["0.91:9:9", "0.01:0:0"]]
    assert [[each.decode() if binary else each for each in row] for row in classes.tolist()] == wanted


async def test_statistics_count_rows_and_requests(node, connect):
    async with connect(node) as client:
        for count in (3, 1):
            await client.infer("digits", inputs({"pixels": np.zeros((count, 8, 8, 1), np.uint8)}))
        (stats,) = (await client.get_inference_statistics("digits", "1"))["model_stats"]
    assert (stats["inference_count"], stats["inference_stats"]["success"]["count"]) == (4, 2)
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0


async def test_refusals_say_what_is_wrong(node, connect):
    good = np.zeros((1, 8, 8, 1), np.uint8)
    cases = [
        ("other", {"pixels": good}, {}, "404", "no model 'other'"),
        ("digits", {"pixels": good}, {"model_version": "9"}, "404", "no version '9'"),
        ("digits", {"picture": good}, {}, "400", "no input 'picture'"),
        ("digits", {"pixels": good.astype(np.float32)}, {}, "400", "is UINT8, the request says 'FP32'"),
        ("digits", {"pixels": good[0]}, {}, "400", "the model takes [-1, 8, 8, 1]"),
        ("digits", {"pixels": good}, {"sequence_id": 5, "sequence_start": True}, "400", "sequences are not kept"),
        ("digits", {"pixels": good}, {"outputs": [triton.InferRequestedOutput("z")]}, "400", "no output 'z'"),
    ]
    async with connect(node) as client:
        for model, tensors, options, status, reason in cases:
            error = await refused(client.infer(model, inputs(tensors), **options))
            assert (error.status(), reason in error.message()) == (status, True), error
        assert (await client.infer("digits", inputs({"pixels": good}))).as_numpy("scores").shape == (1, 10)


async def test_parameters_and_priority_are_let_be(node, connect):
    pixels = np.zeros((1, 8, 8, 1), np.uint8)
    async with connect(node) as client:
        result = await client.infer(
            "digits", inputs({"pixels": pixels}), priority=3, timeout=5_000_000, parameters={"mine": "yes", "n": 1}
        )
    assert result.as_numpy("scores").argmax() == 0


async def test_models_are_listed_unloaded_and_loaded(make_node, connect, steering):
    node = make_node(**steering)
    await node.start()
    async with connect(node) as client:
        ready = {"name": "digits", "version": "1", "state": "READY", "reason": ""}
        assert await client.get_model_repository_index() == [ready]
        error = await refused(client.unload_model("digits"))
        assert error.status() == "401"
        await client.unload_model("digits", headers=dict(ADMIN))
        assert not await client.is_model_ready("digits")
        unloaded = {"name": "digits", "state": "UNAVAILABLE", "reason": "unloaded"}
        assert await client.get_model_repository_index() == [unloaded]
        await client.load_model("digits", headers=dict(ADMIN))
        assert await client.is_model_ready("digits")
        error = await refused(client.load_model("digits", headers=dict(ADMIN), config="{}"))
        assert "the node's own folders" in error.message()
        assert (await refused(client.load_model("other", headers=dict(ADMIN)))).status() == "404"


async def test_many_requests_of_one_client_at_once(serve_echo):
    node = await serve_echo("INT64")

    def work() -> list[int]:
        with triton.InferenceServerClient(address(node), concurrency=4) as client:
            asked = [client.async_infer("echo", inputs({"x_INT64": np.array([[n]])})) for n in range(40)]
            return [int(each.get_result().as_numpy("y_INT64")[0, 0]) for each in asked]

    assert await asyncio.to_thread(work) == list(range(40))


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
async def test_a_real_model_answers_as_it_does_by_itself(tmp_path, connect):
    from node.config import NodeConfig
    from node.runtimes.tensorflow import tensorflow
    from node.server import NodeServer

    tf, _ = tensorflow()

    class Both(tf.Module):
        """Numbers and text in one call."""

        @tf.function(
            input_signature=[tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([None, 1], tf.string, "name")]
        )
        def __call__(self, x, name):
            return {"sum": tf.reduce_sum(x, 1), "greeting": tf.strings.join(["hello ", name])}

    model = Both()
    tf.saved_model.save(model, str(tmp_path / "both" / "1"), signatures=model.__call__)
    node = NodeServer(NodeConfig(models=(Model(path=tmp_path / "both"),), port=0, register=False))
    await node.start()
    try:
        async with connect(node) as client:
            x = np.array([[1, 2, 3], [0.5, 0, 0]], np.float32)
            name = np.array([[b"you"], [b"me"]], object)
            result = await client.infer("both", inputs({"name": name, "x": x}))
            assert result.as_numpy("sum").tolist() == [6.0, 0.5]
            assert result.as_numpy("greeting").tolist() == [[b"hello you"], [b"hello me"]]
    finally:
        await node.stop()
