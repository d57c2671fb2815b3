"""Request bodies of TensorFlow Serving's own REST documentation, to models that fit, with the answers it documents.

Each is written as in tensorflow_serving/g3doc/api_rest.md at https://github.com/tensorflow/serving; the paragraph it
stands in is named. ``half_plus_three`` is the model of that page: x / 2 + 3.
"""

import json
import math

import numpy as np
import pytest

from node.config import NodeConfig
from node.repository import Model
from node.runtimes.base import Signature
from node.server import NodeServer
from node.tensors import TensorSpec


class Scripted:
    """A runtime that is one function."""

    name = "scripted"

    def __init__(self, inputs, outputs, run):
        specs = [
            [TensorSpec(name=each[0], datatype=each[1], shape=each[2]) for each in side] for side in (inputs, outputs)
        ]
        self.signature = Signature(inputs=tuple(specs[0]), outputs=tuple(specs[1]))
        self.run = run

    def close(self):
        pass

    def snapshot(self):
        return {}


def half_plus_three():
    return Scripted([("x", "FP32", ())], [("y", "FP32", ())], lambda inputs: {"y": inputs["x"] * np.float32(0.5) + 3})


def words():
    """Texts in, the same texts out."""
    return Scripted([("words", "BYTES", ())], [("words", "BYTES", ())], dict)


def pairs():
    """Tensors of [1, 2] in, twice as much out."""
    return Scripted([("x", "FP32", (1, 2))], [("y", "FP32", (1, 2))], lambda inputs: {"y": inputs["x"] * 2})


def sensors():
    """Tag, signal and sensor in, two of them out."""
    return Scripted(
        [("tag", "BYTES", ()), ("signal", "INT64", (5,)), ("sensor", "FP32", (2, 2))],
        [("tag", "BYTES", ()), ("total", "INT64", ()), ("sensor", "FP32", (2, 2))],
        lambda inputs: {
            "tag": inputs["tag"],
            "total": inputs["signal"].sum(axis=1),
            "sensor": inputs["sensor"],
        },
    )


def objects():
    """An image and its caption in, scores of two classes out: how many bytes each is long."""

    def run(inputs):
        lengths = [[len(image), len(text)] for image, text in zip(inputs["image"], inputs["caption"], strict=True)]
        return {"scores": np.array(lengths, np.float32)}

    return Scripted([("image", "BYTES", ()), ("caption", "BYTES", ())], [("scores", "FP32", (2,))], run)


def readings():
    """Four readings in, the same out."""
    return Scripted(
        [("sensor_readings", "FP32", (4,))], [("y", "FP32", (4,))], lambda inputs: {"y": inputs["sensor_readings"]}
    )


MODELS = {each.__name__: each for each in (half_plus_three, words, pairs, sensors, objects, readings)}


@pytest.fixture
async def ask(tmp_path, session):
    """Send a body as it is written to a model; gives status and the answer's text."""
    for name in MODELS:
        folder = tmp_path / name / "123"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text("def load():\n    raise NotImplementedError\n")
    config = NodeConfig(
        models=tuple(Model(path=tmp_path / name) for name in MODELS), port=0, id="documented", register=False
    )
    node = NodeServer(config, open=lambda source: MODELS[source.name]())
    await node.start()

    async def send(path, body=None):
        method = "GET" if body is None else "POST"
        async with session.request(method, f"{node.url}/v1/models/{path}", data=body) as reply:
            return reply.status, await reply.text()

    yield send
    await node.stop()


async def answered(ask, path, body):
    status, text = await ask(path, body)
    assert status == 200, text
    return json.loads(text)


async def test_example_get_status_of_the_model(ask):
    status, text = await ask("half_plus_three")
    assert status == 200
    assert json.loads(text)["model_version_status"] == [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]


async def test_example_a_predict_call(ask):
    assert await answered(ask, "half_plus_three:predict", '{"instances": [1.0,2.0,5.0]}') == {
        "predictions": [3.5, 4.0, 5.5]
    }


async def test_example_a_regress_call(ask):
    body = '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}'
    assert await answered(ask, "half_plus_three:regress", body) == {"results": [3.5, 4.0]}


async def test_example_a_model_that_is_not_there(ask):
    status, text = await ask("half:predict", '{"instances": [1.0,5.0]}')
    assert status == 404
    assert isinstance(json.loads(text)["error"], str)


async def test_row_format_a_list_of_three_scalar_tensors(ask):
    body = '{ "instances": [ "foo", "bar", "baz" ] }'
    assert await answered(ask, "words:predict", body) == {"predictions": ["foo", "bar", "baz"]}


async def test_row_format_a_list_of_two_tensors_each_of_one_by_two(ask):
    body = '{ "instances": [ [[1, 2]], [[3, 4]] ] }'
    assert await answered(ask, "pairs:predict", body) == {"predictions": [[[2.0, 4.0]], [[6.0, 8.0]]]}


# The page has one bracket too many behind the second signal; without it, it is JSON.
ROWS = """{
 "instances": [
   {
     "tag": "foo",
     "signal": [1, 2, 3, 4, 5],
     "sensor": [[1, 2], [3, 4]]
   },
   {
     "tag": "bar",
     "signal": [3, 4, 1, 2, 5],
     "sensor": [[4, 5], [6, 8]]
   }
 ]
}"""
COLUMNS = """{
 "inputs": {
   "tag": ["foo", "bar"],
   "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
   "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]
 }
}"""


async def test_row_format_two_instances_of_three_named_tensors(ask):
    assert await answered(ask, "sensors:predict", ROWS) == {
        "predictions": [
            {"tag": "foo", "total": 15, "sensor": [[1.0, 2.0], [3.0, 4.0]]},
            {"tag": "bar", "total": 15, "sensor": [[4.0, 5.0], [6.0, 8.0]]},
        ]
    }
    status, text = await ask("sensors:predict", ROWS.replace("2, 5],", "2, 5]],"))
    assert status == 400
    assert json.loads(text)["error"].startswith("the body: ")


async def test_column_format_of_the_same(ask):
    assert await answered(ask, "sensors:predict", COLUMNS) == {
        "outputs": {
            "tag": ["foo", "bar"],
            "total": [15, 15],
            "sensor": [[[1.0, 2.0], [3.0, 4.0]], [[4.0, 5.0], [6.0, 8.0]]],
        }
    }


CLASSIFY = """{
  "signature_name": "classify_objects",
  "examples": [
    {
      "image": { "b64": "aW1hZ2UgYnl0ZXM=" },
      "caption": "seaside"
    },
    {
      "image": { "b64": "YXdlc29tZSBpbWFnZSBieXRlcw==" },
      "caption": "mountains"
    }
  ]
}"""


async def test_encoding_binary_values_a_classification_request(ask):
    """The model has one signature, which is not called as on the page; asked for it alone the page's body works."""
    status, text = await ask("objects:classify", CLASSIFY)
    assert (status, "'classify_objects'" in text) == (400, True)
    body = CLASSIFY.replace('"classify_objects"', '"serving_default"')
    assert await answered(ask, "objects:classify", body) == {
        "results": [[["0", 11.0], ["1", 7.0]], [["0", 19.0], ["1", 9.0]]]
    }


async def test_json_conformance_nan_and_infinity(ask):
    """The page writes ``example`` for ``examples`` and ``Nan`` for ``NaN``, which its own table does not."""
    body = '{ "examples": [ { "sensor_readings": [ 1.0, -3.14, NaN, Infinity ] } ] }'
    predict = '{ "instances": [ [ 1.0, -3.14, NaN, Infinity ] ] }'
    status, text = await ask("readings:predict", predict)
    assert (status, text) == (200, '{"predictions":[[1.0,-3.14,NaN,Infinity]]}')
    ((_, first), (_, second), (_, third), (_, fourth)) = (await answered(ask, "readings:classify", body))["results"][0]
    assert (first, second, fourth) == (1.0, -3.14, math.inf)
    assert math.isnan(third)


async def test_metadata_is_a_signature_def(ask):
    status, text = await ask("half_plus_three/metadata")
    assert status == 200
    body = json.loads(text)
    assert body["model_spec"] == {"name": "half_plus_three", "signature_name": "", "version": "123"}
    definition = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert definition["method_name"] == "tensorflow/serving/predict"
