"""``/v1/models/…`` over real HTTP, with a model of numbers, one of pictures, one of several inputs."""

import asyncio
import base64
import gzip
import io
import json

import numpy as np
import pytest

from node.config import NodeConfig
from node.protocols.tfserving import handlers
from node.repository import Condition, Model, Version, Wanted
from node.server import NodeServer
from node.testing import ScriptedRuntime


class Function:
    """A runtime that is one function of named arrays."""

    name = "function"

    def __init__(self, signature, function):
        self.signature = signature
        self.run = function
        self.runs = []

    def close(self):
        pass

    def snapshot(self):
        return {"runtime": self.name}


@pytest.fixture
def half(signature):
    return Function(signature(("x", "FP32", ())), lambda inputs: {"y": inputs["x"] / 2 + 3})


@pytest.fixture
def mixed(signature):
    shapes = signature(
        ("tag", "BYTES", ()),
        ("signal", "INT32", (None,)),
        outputs=(("sum", "INT64", ()), ("echo_bytes", "BYTES", ()), ("ratio", "FP64", ())),
    )

    def run(inputs):
        total = inputs["signal"].sum(axis=1, dtype=np.int64)
        with np.errstate(divide="ignore"):
            return {"sum": total, "echo_bytes": inputs["tag"], "ratio": 1 / total}

    return Function(shapes, run)


@pytest.fixture
async def server(tmp_path, model, half, mixed):
    """A node that serves half (versions 1 and 2), mixed, and the digits of the scripted runtime."""
    for name, version in (("half", 1), ("half", 2), ("mixed", 1)):
        folder = tmp_path / name / str(version)
        folder.mkdir(parents=True)
        (folder / "model.py").write_text("def load():\n    raise NotImplementedError\n")
    models = (
        Model(path=tmp_path / "half", wanted=Wanted(latest=2)),
        Model(path=tmp_path / "mixed"),
        Model(path=model),
    )
    runtimes = {"half": half, "mixed": mixed, "digits": ScriptedRuntime(poison=255)}
    config = NodeConfig(models=models, port=0, id="n", register=False, labels=(("half", "stable", "1"),))
    node = NodeServer(config, open=lambda source: runtimes[source.name])
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
def ask(server, session):
    """POST to a path below ``/v1/models/``; gives status and body."""

    async def post(path, body, **options):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with session.post(f"{server.url}/v1/models/{path}", data=io.BytesIO(data), **options) as reply:
            assert reply.headers["Content-Type"] == "application/json"
            return reply.status, json.loads(await reply.read())

    return post


@pytest.fixture
def look(server, session):
    async def get(path):
        async with session.get(server.url + path) as reply:
            return reply.status, json.loads(await reply.read())

    return get


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


async def test_rows_are_predicted(ask):
    assert await ask("half:predict", {"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [3.5, 4.0, 5.5]})


async def test_columns_are_predicted(ask):
    assert await ask("half:predict", {"inputs": [1.0]}) == (200, {"outputs": [3.5]})
    status, body = await ask("mixed:predict", {"inputs": {"tag": ["a", "b"], "signal": [[1, 2], [3, 1]]}})
    assert status == 200
    assert body == {
        "outputs": {"sum": [3, 4], "echo_bytes": [{"b64": "YQ=="}, {"b64": "Yg=="}], "ratio": [1 / 3, 0.25]}
    }


async def test_an_infinite_answer_is_written_as_tensorflow_serving_does(ask):
    status, body = await ask("mixed:predict", {"instances": [{"tag": "a", "signal": [0]}]})
    assert status == 200
    assert body["predictions"][0]["ratio"] == float("inf")


async def test_no_content_type_and_gzip_will_do(server, session, ask):
    body = gzip.compress(b'{"instances": [1.0]}')
    assert (await ask("half:predict", body, headers={"Content-Encoding": "gzip"}))[0] == 200
    async with session.post(
        f"{server.url}/v1/models/half:predict", data=b'{"instances": [1.0]}', skip_auto_headers=["Content-Type"]
    ) as reply:
        assert reply.status == 200


async def test_more_rows_than_a_batch_come_back_in_order(ask):
    rows = list(range(1000))
    status, body = await ask("half:predict", {"instances": rows})
    assert status == 200
    assert body["predictions"] == [row / 2 + 3 for row in rows]


async def test_more_rows_than_a_node_takes_are_refused(ask):
    status, body = await ask("half:predict", {"instances": [0] * (handlers.MOST_ROWS + 1)})
    assert (status, body["reason"]) == (413, "too_large")
    assert "4,096" in body["error"]


async def test_a_version_and_a_label_answer(ask, look):
    for which in ("/versions/1", "/versions/2", "/labels/stable"):
        assert (await ask(f"half{which}:predict", {"instances": [1]}))[0] == 200
        assert (await look(f"/v1/models/half{which}/metadata"))[0] == 200
    for which in ("/versions/3", "/labels/canary"):
        assert (await ask(f"half{which}:predict", {"instances": [1]}))[0] == 404
        assert (await look(f"/v1/models/half{which}"))[0] == 404
        assert (await look(f"/v1/models/half{which}/metadata"))[0] == 404


async def test_pictures_are_files_or_arrays(ask, png):
    levels = [30, 140, 250]
    files = {"instances": [b64(png(level)) for level in levels]}
    arrays = {"instances": [np.full((8, 8, 1), level).tolist() for level in levels]}
    answers = [await ask("digits:predict", body) for body in (files, arrays)]
    assert answers[0] == answers[1]
    assert [np.argmax(row) for row in answers[0][1]["predictions"]] == [1, 5, 9]


async def test_pictures_are_classified(ask, png):
    for key in ("pixels", "image/encoded"):
        status, body = await ask("digits:classify", {"examples": [{key: b64(png(140))}]})
        assert status == 200
        (pairs,) = body["results"]
        assert [label for label, _ in pairs] == [str(number) for number in range(10)]
        assert max(pairs, key=lambda pair: pair[1]) == ["5", 0.91]


async def test_a_picture_that_is_none_is_refused_with_its_number(ask, png):
    status, body = await ask("digits:predict", {"instances": [b64(png()), b64(b"no picture")]})
    assert (status, body["reason"]) == (400, "bad_request")
    assert body["error"].startswith("image 1: the bytes are no image")
    status, body = await ask("digits:predict", {"instances": [b64(b"")]})
    assert (status, body["error"][:9]) == (400, "image 0: ")


async def test_a_photo_is_taken_apart_in_a_thread(ask, photo):
    assert len(photo) > handlers._IN_PLACE
    status, body = await ask("digits:predict", {"instances": [b64(photo)] * 3})
    assert status == 200
    assert len(body["predictions"]) == 3


async def test_a_large_answer_is_written_in_a_thread(ask, monkeypatch):
    monkeypatch.setattr(handlers, "_FEW", 1)
    assert await ask("half:predict", {"instances": [1, 2]}) == (200, {"predictions": [3.5, 4.0]})


async def test_numbers_are_regressed_and_nothing_else_is(ask, png):
    body = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert await ask("half:regress", body) == (200, {"results": [3.5, 4.0]})
    status, refusal = await ask("digits:regress", {"examples": [{"pixels": b64(png())}]})
    assert status == 400
    assert "one number for each item" in refusal["error"]
    for model in ("half", "mixed"):
        status, refusal = await ask(f"{model}:classify", {"examples": [{}]})
        assert status == 400
        assert "row of scores" in refusal["error"]
    assert (await ask("mixed:regress", {"examples": [{}]}))[0] == 400


async def test_a_model_that_fails_is_a_500_for_that_request_only(ask, png):
    (status, body), (fine, _) = await asyncio.gather(
        ask("digits:predict", {"instances": [b64(png(255))]}), ask("digits:predict", {"instances": [b64(png(30))]})
    )
    assert (status, body["reason"], fine) == (500, "internal", 200)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"instances": [' + b"9" * 100_000 + b"]}",
        b'{"instances": [1e400]}',
        b'{"instances": ["\\ud800"]}',
        b'{"instances": [{"b64": "aGk="}]}',
        b'{"instances": [' + b"[]," * 1_000_000 + b"[]]}",
        b'{"instances": [' + b"true," * 1_000_000 + b"1]}",
        b'{"signature_name": "' + b"x" * 100_000 + b'", "instances": [1]}',
    ],
)
async def test_what_is_nonsense_is_a_400_of_one_line(ask, body):
    status, refusal = await ask("half:predict", body)
    assert (status, refusal["reason"]) == (400, "bad_request")
    assert "\n" not in refusal["error"]
    assert len(refusal["error"]) < 400


async def test_paths_that_are_not_there(ask, look):
    assert (await ask("half:explode", {"instances": [1]}))[0] == 404
    assert (await ask("nobody:predict", {"instances": [1]}))[0] == 404
    assert (await look("/v1/models/half:predict"))[0] == 405
    assert (await look("/v1/models/nobody"))[0] == 404
    assert (await look("/v1/models/nobody/metadata"))[0] == 404


async def test_the_state_of_a_model_serves_tensorflow_serving_and_kserve(server, look):
    status, body = await look("/v1/models/half")
    assert status == 200
    assert [(each["version"], each["state"]) for each in body["model_version_status"]] == [
        ("2", "AVAILABLE"),
        ("1", "AVAILABLE"),
    ]
    assert (body["name"], body["ready"]) == ("half", True)
    entry = server.repository.entry("half")
    entry.versions["3"] = Version("3", Condition.UNAVAILABLE, "its file is damaged")
    status, body = await look("/v1/models/half/versions/3")
    assert (status, body["ready"]) == (200, False)
    assert body["model_version_status"] == [
        {"version": "3", "state": "END", "status": {"error_code": "UNKNOWN", "error_message": "its file is damaged"}}
    ]
    entry.versions["4"] = Version("4")
    assert (await look("/v1/models/half/versions/4"))[1]["model_version_status"][0]["state"] == "LOADING"
    assert (await look("/v1/models/half/versions/4/metadata"))[0] == 503


async def test_the_models_there_are_and_that_there_is_a_server(look):
    assert await look("/v1/models") == (200, {"models": ["half", "mixed", "digits"]})
    assert await look("/") == (200, {"status": "alive"})


async def test_where_the_time_went_and_how_busy_the_node_is_ride_on_the_answer(server, session):
    async with session.post(f"{server.url}/v1/models/half:predict", data=b'{"instances": [1]}') as reply:
        assert "infer;dur=" in reply.headers["Server-Timing"]
        assert "named_metrics.wait_ms=" in reply.headers["endpoint-load-metrics"]


async def test_a_deadline_that_has_passed_is_a_504(ask):
    headers = {"x-envoy-expected-rq-timeout-ms": "0"}
    status, body = await ask("half:predict", {"instances": [1]}, headers=headers)
    assert (status, body["reason"]) == (504, "deadline")


async def test_a_token_is_asked_for_where_there_is_one(tmp_path, model, session, directory):
    tokens = tmp_path / "tokens"
    tokens.write_text("s3cret-s3cret-s3cret\n")
    tokens.chmod(0o600)
    config = NodeConfig(models=(Model(path=model),), port=0, register=False, token_file=tokens)
    node = NodeServer(config, open=lambda _: ScriptedRuntime())
    await node.start()
    try:
        for path in ("", "/digits", "/digits/metadata", "/digits/versions/1"):
            async with session.get(f"{node.url}/v1/models{path}") as reply:
                assert reply.status == 401
            headers = {"Authorization": "Bearer s3cret-s3cret-s3cret"}
            async with session.get(f"{node.url}/v1/models{path}", headers=headers) as reply:
                assert reply.status == 200
        async with session.post(f"{node.url}/v1/models/digits:predict", data=b"{}") as reply:
            assert reply.status == 401
        async with session.get(f"{node.url}/") as reply:
            assert reply.status == 200
    finally:
        await node.stop()
