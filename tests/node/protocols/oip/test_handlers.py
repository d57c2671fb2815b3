"""The routes as an HTTP client without a library of its own sees them."""

import gzip
import io
import json
import threading
import zlib

import numpy as np
import pytest

from node.lifecycle import State
from node.protocols.oip import handlers
from node.protocols.oip.inputs import JSON_LENGTH
from node.protocols.oip.request import parse

ECHO = "/v2/models/echo"


def asked(values, datatype="FP32", **more):
    shape = [1, len(values)]
    return {"inputs": [{"name": f"x_{datatype}", "shape": shape, "datatype": datatype, "data": values}], **more}


@pytest.fixture
def call(session):
    async def call(node, method, path, **options):
        async with session.request(method, node.url + path, **options) as reply:
            return reply.status, await reply.json(), reply.headers

    return call


class TestDescribing:
    async def test_live_and_ready_say_so(self, node, call):
        assert (await call(node, "GET", "/v2/health/live"))[:2] == (200, {"live": True})
        assert (await call(node, "GET", "/v2/health/ready"))[:2] == (200, {"ready": True})
        assert (await call(node, "GET", "/v2/models/digits/ready"))[:2] == (200, {"name": "digits", "ready": True})

    async def test_a_draining_node_lives_and_is_not_ready(self, node, call):
        node.lifecycle.to(State.DRAINING)
        assert (await call(node, "GET", "/v2/health/live"))[0] == 200
        status, body, headers = await call(node, "GET", "/v2/health/ready")
        assert (status, body["reason"], headers["Retry-After"]) == (503, "draining", "0")

    async def test_a_node_that_starts_is_not_ready(self, make_node, call):
        node = make_node()
        await node._listen()
        status, body, _ = await call(node, "GET", "/v2/health/ready")
        assert (status, body["reason"]) == (503, "overloaded")

    @pytest.mark.parametrize("path", ["/v2", "/v2/"])
    async def test_the_server_describes_itself(self, node, call, path):
        status, body, headers = await call(node, "GET", path)
        assert (status, body["name"]) == (200, "twostep")
        assert body["version"]
        assert headers["Content-Type"] == "application/json"

    @pytest.mark.parametrize("which", ["", "/versions/1"])
    async def test_a_model_is_described_by_name_or_version(self, node, call, which):
        _, metadata, _ = await call(node, "GET", f"/v2/models/digits{which}")
        assert metadata == {
            "name": "digits",
            "versions": ["1"],
            "platform": "scripted",
            "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
        }
        _, config, _ = await call(node, "GET", f"/v2/models/digits{which}/config")
        assert (config["name"], config["max_batch_size"]) == ("digits", 32)
        assert (await call(node, "GET", f"/v2/models/digits{which}/ready"))[0] == 200

    @pytest.mark.parametrize("path", ["", "/ready", "/config", "/stats"])
    @pytest.mark.parametrize("which", ["other", "digits/versions/7"])
    async def test_what_is_not_there_is_404_with_an_error(self, node, call, which, path):
        status, body, headers = await call(node, "GET", f"/v2/models/{which}{path}")
        assert (status, body["reason"]) == (404, "not_found")
        assert which.split("/")[0] in body["error"]
        assert headers["Content-Type"] == "application/json"

    async def test_statistics_grow_with_what_is_answered(self, serve_echo, call):
        node = await serve_echo("FP32")
        for values in ([1, 2], [3]):
            assert (await call(node, "POST", f"{ECHO}/infer", json=asked(values)))[0] == 200
        for path in (f"{ECHO}/stats", f"{ECHO}/versions/1/stats", "/v2/models/stats"):
            _, body, _ = await call(node, "GET", path)
            (stats,) = body["model_stats"]
            assert (stats["name"], stats["version"], stats["inference_count"]) == ("echo", "1", 2)
            assert stats["inference_stats"]["success"]["count"] == 2


class TestInfer:
    async def test_json_in_json_out(self, serve_echo, call):
        node = await serve_echo("FP32")
        status, body, headers = await call(node, "POST", f"{ECHO}/infer", json=asked([1.5, -2], id="7"))
        assert status == 200
        assert body == {
            "model_name": "echo",
            "model_version": "1",
            "id": "7",
            "outputs": [{"name": "y_FP32", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2.0]}],
        }
        assert headers["Content-Type"] == "application/json"
        assert JSON_LENGTH not in headers
        assert headers["Server-Timing"].startswith("queue;dur=")
        assert "named_metrics.wait_ms" in headers["endpoint-load-metrics"]

    async def test_binary_in_binary_out(self, serve_echo, session):
        node = await serve_echo("INT16")
        tensor = {"name": "x_INT16", "shape": [2, 1], "datatype": "INT16", "parameters": {"binary_data_size": 4}}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {JSON_LENGTH: str(len(head))}
        async with session.post(f"{node.url}{ECHO}/infer", data=head + b"\1\0\2\0", headers=headers) as reply:
            assert reply.content_type == "application/octet-stream"
            length, body = int(reply.headers[JSON_LENGTH]), await reply.read()
        assert json.loads(body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 4}
        assert body[length:] == b"\1\0\2\0"

    async def test_a_body_of_nothing_but_elements(self, serve_echo, session):
        node = await serve_echo("INT8")
        async with session.post(f"{node.url}{ECHO}/infer", data=b"\1\2\3", headers={JSON_LENGTH: "0"}) as reply:
            assert (await reply.read()).endswith(b"\1\2\3")

    async def test_more_rows_than_a_batch_holds_are_answered_in_order(self, serve_echo, call):
        node = await serve_echo("INT64", max_batch=4)
        rows = list(range(23))
        tensor = {"name": "x_INT64", "shape": [23, 1], "datatype": "INT64", "data": rows}
        _, body, _ = await call(node, "POST", f"{ECHO}/infer", json={"inputs": [tensor]})
        assert body["outputs"][0]["data"] == rows

    @pytest.mark.parametrize("size", [100, 200_000])
    async def test_bodies_of_any_size_are_read_large_ones_beside_the_loop(self, serve_echo, call, monkeypatch, size):
        threads = []

        def spied(*args):
            threads.append(threading.current_thread())
            return parse(*args)

        monkeypatch.setattr(handlers, "parse", spied)
        node = await serve_echo("FP64")
        values = np.random.default_rng(3).standard_normal(size).tolist()
        body = io.BytesIO(json.dumps(asked(values, "FP64")).encode())
        _, said, _ = await call(node, "POST", f"{ECHO}/infer", data=body)
        assert said["outputs"][0]["data"] == values
        assert (threads == [threading.main_thread()]) == (size == 100)

    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    async def test_compressed_bodies_are_read(self, serve_echo, call, encoding):
        node = await serve_echo("FP32")
        squeeze = gzip.compress if encoding == "gzip" else zlib.compress
        data, headers = squeeze(json.dumps(asked([2])).encode()), {"Content-Encoding": encoding}
        status, body, _ = await call(node, "POST", f"{ECHO}/infer", data=data, headers=headers)
        assert (status, body["outputs"][0]["data"]) == (200, [2.0])

    @pytest.mark.parametrize(
        ("accepted", "values", "encoding"),
        [
            ("gzip", 1000, "gzip"),
            ("deflate", 1000, "deflate"),
            ("GZIP", 1000, "gzip"),
            ("gzip", 10, None),
            ("gzip, deflate", 1000, None),
            ("br", 1000, None),
            ("identity", 1000, None),
        ],
    )
    async def test_answers_are_compressed_for_who_names_one_encoding(
        self, serve_echo, call, accepted, values, encoding
    ):
        node = await serve_echo("FP32")
        headers = {"Accept-Encoding": accepted}
        _, body, said = await call(node, "POST", f"{ECHO}/infer", json=asked([0] * values), headers=headers)
        assert body["outputs"][0]["data"] == [0.0] * values
        assert said.get("Content-Encoding") == encoding

    async def test_classes_have_the_model_s_labels(self, node, call):
        tensor = {"name": "pixels", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [60] * 64}
        outputs = [{"name": "scores", "parameters": {"classification": 2}}]
        _, body, _ = await call(node, "POST", "/v2/models/digits/infer", json={"inputs": [tensor], "outputs": outputs})
        assert body["outputs"][0]["data"] == ["0.91:2:2", "0.01:0:0"]

    @pytest.mark.parametrize(
        ("body", "status", "reason"),
        [
            (b"", 400, "bad_request"),
            (b"[", 400, "bad_request"),
            (json.dumps(asked([])).encode(), 400, "bad_request"),
            (json.dumps(asked([1e39])).encode(), 400, "bad_request"),
            (json.dumps({"inputs": []}).encode(), 400, "bad_request"),
            (b'{"inputs":' + b"[" * 50_000, 400, "bad_request"),
            (
                json.dumps(
                    {"inputs": [{"name": "x_FP32", "shape": [5000, 1], "datatype": "FP32", "data": [1]}]}
                ).encode(),
                413,
                "too_large",
            ),
        ],
    )
    async def test_what_cannot_be_read_is_refused_in_a_line(self, serve_echo, call, body, status, reason):
        node = await serve_echo("FP32")
        given, said, headers = await call(node, "POST", f"{ECHO}/infer", data=body)
        assert (given, said["reason"]) == (status, reason)
        assert said["error"]
        assert "\n" not in said["error"]
        assert headers["Content-Type"] == "application/json"

    async def test_a_json_length_past_the_body_is_refused(self, serve_echo, call):
        node = await serve_echo("FP32")
        status, body, _ = await call(node, "POST", f"{ECHO}/infer", data=b"{}", headers={JSON_LENGTH: "3"})
        assert status == 400
        assert JSON_LENGTH in body["error"]

    async def test_an_output_json_cannot_hold_is_422_and_fine_in_binary(self, serve_echo, call, session):
        node = await serve_echo("FP32")
        tensor = {"name": "x_FP32", "shape": [1, 1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}
        for binary, status in ((False, 422), (True, 200)):
            head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": binary}}).encode()
            data, headers = head + np.float32(np.nan).tobytes(), {JSON_LENGTH: str(len(head))}
            async with session.post(f"{node.url}{ECHO}/infer", data=data, headers=headers) as reply:
                assert reply.status == status
                assert binary or "ask for binary data" in (await reply.json())["error"]

    @pytest.mark.parametrize(("timeout", "statuses"), [(1, (503, 504)), (0, (200,)), (20_000_000, (200,))])
    async def test_a_timeout_in_microseconds_is_a_deadline(self, serve_echo, call, timeout, statuses):
        node = await serve_echo("FP32")
        status, _, _ = await call(node, "POST", f"{ECHO}/infer", json=asked([1], parameters={"timeout": timeout}))
        assert status in statuses

    async def test_who_drains_refuses_with_an_error(self, node, call):
        node.intake.refusing = True
        status, body, _ = await call(node, "POST", "/v2/models/digits/infer", json={})
        assert (status, body["reason"]) == (503, "draining")


class TestRepository:
    @pytest.fixture
    def tokens(self, tmp_path):
        (tmp_path / "admin").write_text("steer\n")
        (tmp_path / "users").write_text("use\n")
        return {"admin_token_file": tmp_path / "admin", "token_file": tmp_path / "users"}

    async def test_models_are_listed_unloaded_and_loaded_again(self, make_node, call, tokens):
        node = make_node(**tokens)
        await node.start()
        admin = {"Authorization": "Bearer steer"}
        index = "/v2/repository/index"
        ready = {"name": "digits", "version": "1", "state": "READY", "reason": ""}
        assert (await call(node, "POST", index, headers=admin))[1] == [ready]
        assert (await call(node, "POST", "/v2/repository/models/digits/unload", headers=admin))[0] == 200
        assert (await call(node, "GET", "/v2/models/digits/ready", headers=admin))[0] == 404
        assert (await call(node, "POST", "/v2/models/digits/infer", json={}, headers=admin))[0] == 404
        assert (await call(node, "POST", index, json={"ready": True}, headers=admin))[1] == []
        assert (await call(node, "POST", "/v2/repository/models/digits/load", headers=admin))[0] == 200
        assert (await call(node, "POST", index, json={"ready": True}, headers=admin))[1] == [ready]

    async def test_what_cannot_be_loaded_is_told_and_listed(self, make_node, call, tokens, model):
        node = make_node(**tokens)
        await node.start()
        admin = {"Authorization": "Bearer steer"}
        await call(node, "POST", "/v2/repository/models/digits/unload", headers=admin)
        (model / "1" / "model.keras").write_bytes(b"broken")
        status, body, _ = await call(node, "POST", "/v2/repository/models/digits/load", headers=admin)
        assert (status, body["reason"]) == (400, "bad_request")
        assert "sha256" in body["error"]
        _, (row,), _ = await call(node, "POST", "/v2/repository/index", headers=admin)
        assert row["state"] == "UNAVAILABLE"
        assert "sha256" in row["reason"]

    async def test_a_model_nobody_told_the_node_of_is_404(self, make_node, call, tokens):
        node = make_node(**tokens)
        await node.start()
        admin = {"Authorization": "Bearer steer"}
        for what in ("load", "unload"):
            assert (await call(node, "POST", f"/v2/repository/models/other/{what}", headers=admin))[0] == 404

    async def test_only_who_may_steer_loads_and_unloads(self, make_node, call, tokens):
        node = make_node(**tokens)
        await node.start()
        for what in ("load", "unload"):
            path = f"/v2/repository/models/digits/{what}"
            assert (await call(node, "POST", path))[0] == 401
            assert (await call(node, "POST", path, headers={"Authorization": "Bearer use"}))[0] == 403
        assert (await call(node, "POST", "/v2/repository/index"))[0] == 401
        assert (await call(node, "POST", "/v2/repository/index", headers={"Authorization": "Bearer use"}))[0] == 200
        for path in ("/v2/models/digits", "/v2/models/stats", "/v2/models/digits/config"):
            assert (await call(node, "GET", path))[0] == 401
        assert (await call(node, "GET", "/v2/health/ready"))[0] == 200

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"parameters": {"config": "{}"}}, 400),
            ({"parameters": {"file:1/model.onnx": "AAAA"}}, 400),
            ({"parameters": {"unload_dependents": False}}, 200),
            ({"parameters": None}, 200),
            ([], 400),
            ({"parameters": "x" * 70_000}, 413),
        ],
    )
    async def test_a_model_never_comes_out_of_a_request(self, make_node, call, tokens, body, status):
        node = make_node(**tokens)
        await node.start()
        admin = {"Authorization": "Bearer steer"}
        given, said, _ = await call(node, "POST", "/v2/repository/models/digits/load", json=body, headers=admin)
        assert given == status
        assert status == 200 or "\n" not in said["error"]
