"""The node over real HTTP with a fake model: every status of the protocol, and that input never costs a 500."""

import asyncio
import gzip
import http.client
import io
import subprocess

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.errors import Overloaded, PortInUse

IMAGE = {"Content-Type": "image/png"}


async def classify(session, node, data, query="", **options):
    async with session.post(f"{node.url}/classify{query}", data=data, **options) as reply:
        return reply.status, await reply.json(content_type="application/json"), reply.headers


def form(*files):
    data = aiohttp.FormData()
    for name, content in files:
        data.add_field("file", content, filename=name, content_type="image/png")
    return data


async def test_a_raw_image_is_classified(node, session, png):
    status, body, headers = await classify(session, node, png(140), "?top=2", headers=IMAGE)
    assert status == 200
    assert {key: body[key] for key in ("model", "version", "node")} == {
        "model": "digits",
        "version": "1",
        "node": "digits-a1b2",
    }
    (result,) = body["results"]
    assert result["name"] == ""
    assert result["predictions"] == [
        {"label": "5", "index": 5, "score": 0.91},
        {"label": "0", "index": 0, "score": 0.01},
    ]
    assert [part.split(";")[0].strip() for part in headers["Server-Timing"].split(",")] == ["queue", "decode", "infer"]


async def test_any_content_type_or_none_will_do_for_a_raw_image(node, session, png):
    for kind in ("application/octet-stream", "text/plain", "application/x-www-form-urlencoded", "nonsense"):
        assert (await classify(session, node, png(), headers={"Content-Type": kind}))[0] == 200
    async with session.post(f"{node.url}/classify", data=png(), skip_auto_headers=["Content-Type"]) as reply:
        assert reply.status == 200


async def test_a_photo_is_decoded_in_a_thread(node, session, photo):
    status, body, _ = await classify(session, node, photo)
    assert status == 200
    assert body["results"][0]["predictions"][0]["label"] in {"4", "5"}


@pytest.mark.parametrize(("query", "count"), [("", 5), ("?top=1", 1), ("?top=100", 10)])
async def test_top_is_five_unless_told_and_never_more_than_there_are_labels(node, session, png, query, count):
    _, body, _ = await classify(session, node, png(), query)
    assert len(body["results"][0]["predictions"]) == count


@pytest.mark.parametrize("top", ["0", "101", "-1", "x", "1.5", "99999999999999999999", "٣"])
async def test_a_top_that_makes_no_sense_is_a_bad_request(node, session, png, top):
    status, body, _ = await classify(session, node, png(), f"?top={top}")
    assert (status, body["reason"]) == (400, "bad_request")


async def test_a_form_answers_for_each_file_in_order(node, session, png, photo):
    files = [("a.png", png(10)), ("b.png", png(200)), ("c.jpg", photo), ("d.png", png(60))]
    status, body, _ = await classify(session, node, form(*files), "?top=1")
    assert status == 200
    assert [result["name"] for result in body["results"]] == ["a.png", "b.png", "c.jpg", "d.png"]
    labels = [result["predictions"][0]["label"] for result in body["results"]]
    assert [labels[0], labels[1], labels[3]] == ["0", "7", "2"]


async def test_one_bad_file_of_a_form_fails_alone(node, session, png):
    status, body, _ = await classify(session, node, form(("a.png", png()), ("b.txt", b"no image"), ("c.png", b"")))
    assert status == 200
    good, bad, empty = body["results"]
    assert "predictions" in good
    assert (bad["name"], bad["reason"]) == ("b.txt", "bad_image")
    assert "predictions" not in bad
    assert empty["reason"] == "empty"


async def test_a_form_of_bad_files_only_is_422_and_tells_each(node, session):
    status, body, _ = await classify(session, node, form(("a", b"x"), ("b", b"y")))
    assert (status, body["reason"], body["node"]) == (422, "bad_image", "digits-a1b2")
    assert [result["reason"] for result in body["results"]] == ["bad_image", "bad_image"]


async def test_plain_fields_of_a_form_are_no_images(node, session, png):
    data = form(("a.png", png()))
    data.add_field("comment", "a seven, I think")
    _, body, _ = await classify(session, node, data)
    assert [result["name"] for result in body["results"]] == ["a.png"]


async def test_a_file_name_that_is_no_text_is_answered_all_the_same(node, session, png):
    body = (
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="\xff\xfe.png"\r\n\r\n' + png() + b"\r\n--B--\r\n"
    )
    status, _, _ = await classify(session, node, body, headers={"Content-Type": "multipart/form-data; boundary=B"})
    assert status == 200


@pytest.mark.parametrize(
    ("content_type", "body", "status", "reason"),
    [
        ("multipart/form-data", b"--B\r\n\r\n", 400, "bad_request"),
        ("multipart/form-data; boundary=B", b"nothing of the kind", 400, "bad_request"),
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: form-data\r\n\r\nno end", 400, "bad_request"),
        (
            "multipart/form-data; boundary=B",
            b"--B\r\nContent-Type: multipart/mixed\r\n\r\n--B--\r\n",
            400,
            "bad_request",
        ),
        ("multipart/form-data; boundary=B", b"--B--\r\n", 400, "empty"),
        ("multipart/form-data; boundary=B", b"", 400, "bad_request"),
        ("multipart/mixed; boundary=B", b"--B--\r\n", 415, "unsupported"),
    ],
)
async def test_a_malformed_form_says_so(node, session, content_type, body, status, reason):
    got, answer, _ = await classify(session, node, body, headers={"Content-Type": content_type})
    assert (got, answer["reason"]) == (status, reason)
    assert answer["error"]


async def test_too_many_files_in_one_form(node, session, png):
    status, body, _ = await classify(session, node, form(*((str(n), png()) for n in range(257))))
    assert (status, body["reason"]) == (400, "bad_request")


@pytest.mark.parametrize(("data", "status", "reason"), [(b"", 400, "empty"), (b"hello", 422, "bad_image")])
async def test_no_image_at_all(node, session, data, status, reason):
    got, body, _ = await classify(session, node, data)
    assert (got, body["reason"]) == (status, reason)


async def test_a_truncated_jpeg(node, session, photo):
    status, body, _ = await classify(session, node, photo[: len(photo) // 2])
    assert (status, body["reason"]) == (422, "bad_image")
    assert "damaged" in body["error"]


async def test_compressed_bodies_are_read_and_bounded_after_decompression(make_node, session, png):
    node = make_node(max_body=100_000)
    await node.start()
    packed = {"Content-Encoding": "gzip"}
    assert (await classify(session, node, gzip.compress(png()), headers=packed))[0] == 200
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 100_000
    assert (await classify(session, node, bomb, headers=packed))[0] == 413
    status, body, headers = await classify(session, node, b"not gzip", headers=packed)
    assert (status, body["reason"], headers["Connection"]) == (400, "bad_request", "close")
    assert (await classify(session, node, png(), headers={"Content-Encoding": "lzma"}))[0] == 415


class TestTooLarge:
    SIZE = 100 * 1024 * 1024

    async def test_aiohttp_reads_a_clean_413(self, node, session):
        status, body, headers = await classify(session, node, io.BytesIO(bytes(self.SIZE)))
        assert (status, body["reason"]) == (413, "too_large")
        assert headers["Connection"] == "close"

    async def test_a_client_that_sends_everything_before_it_reads_gets_it_too(self, node):
        def send():
            connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
            try:
                connection.request("POST", "/classify", body=bytes(self.SIZE))
                reply = connection.getresponse()
                return reply.status, reply.read()
            finally:
                connection.close()

        status, body = await asyncio.to_thread(send)
        assert status == 413
        assert b"too_large" in body

    async def test_curl_sends_no_byte_of_it(self, node, curl, tmp_path):
        file = tmp_path / "large"
        with file.open("wb") as stream:
            stream.truncate(self.SIZE)
        command = [
            curl,
            "-s",
            "-w",
            " %{http_code} %{size_upload}",
            "--data-binary",
            f"@{file}",
            f"{node.url}/classify",
        ]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(" 413 0")

    async def test_a_body_of_unknown_length_is_cut_off_at_the_limit(self, make_node, session):
        node = make_node(max_body=1_000_000)
        await node.start()

        async def endless():
            for _ in range(100):
                yield bytes(100_000)

        status, body, _ = await classify(session, node, endless())
        assert (status, body["reason"]) == (413, "too_large")
        assert node.admission.bytes == 0


async def test_curl_is_told_to_go_on_with_a_body_that_fits(node, curl, tmp_path, photo):
    file = tmp_path / "photo.jpg"
    file.write_bytes(photo)
    command = [curl, "-s", "-w", " %{http_code}", "-H", "Expect: 100-continue", "--data-binary", f"@{file}"]
    done = await asyncio.to_thread(
        subprocess.run, [*command, f"{node.url}/classify"], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith(" 200")


async def test_a_slow_body_times_out(make_node, session):
    node = make_node(body_timeout=0.05)
    await node.start()

    async def slow():
        yield b"a"
        await asyncio.sleep(30)

    status, body, headers = await classify(session, node, slow())
    assert status == 408
    assert "0.05 s" in body["error"]
    assert headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/classify", 405, "bad_request"),
        ("DELETE", "/readyz", 405, "bad_request"),
    ],
)
async def test_unknown_paths_and_methods_are_json_too(node, session, method, path, status, reason):
    async with session.request(method, node.url + path) as reply:
        assert reply.status == status
        body = await reply.json()
        assert (body["reason"], body["node"]) == (reason, "digits-a1b2")
        assert reply.content_type == "application/json"
        assert status != 405 or reply.headers["Allow"]


async def test_a_request_id_is_echoed_or_made(node, session, png):
    _, _, headers = await classify(session, node, png(), headers={"X-Request-ID": "mine-1"})
    assert headers["X-Request-ID"] == "mine-1"
    _, _, first = await classify(session, node, b"bad")
    _, _, second = await classify(session, node, b"bad")
    assert first["X-Request-ID"] != second["X-Request-ID"]
    _, _, long = await classify(session, node, png(), headers={"X-Request-ID": "x" * 500})
    assert len(long["X-Request-ID"]) < 100


@pytest.mark.parametrize(
    ("deadline", "status", "reason"),
    [("0", 504, "deadline"), ("-5", 504, "deadline"), ("soon", 400, "bad_request"), ("nan", 400, "bad_request")],
)
async def test_a_deadline_that_cannot_be_met(node, session, png, deadline, status, reason):
    headers = {"x-envoy-expected-rq-timeout-ms": deadline}
    got, body, _ = await classify(session, node, png(), headers=headers)
    assert (got, body["reason"]) == (status, reason)


async def test_what_runs_late_is_answered_504_without_running(node, session, png, runtime, until, queued):
    runtime.gate.clear()
    warm = len(runtime.batches)
    first = asyncio.ensure_future(classify(session, node, png()))
    await until(lambda: len(runtime.batches) == warm + 1)
    late = asyncio.ensure_future(classify(session, node, png(), headers={"x-envoy-expected-rq-timeout-ms": "500"}))
    await until(lambda: queued(node) == 1)
    await asyncio.sleep(0.6)
    runtime.gate.set()
    status, body, _ = await late
    assert (status, body["reason"]) == (504, "deadline")
    assert (await first)[0] == 200
    assert len(runtime.batches) == warm + 1


async def test_a_wait_beyond_the_limit_is_refused_with_retry_after(node, session, png, monkeypatch):
    monkeypatch.setattr(node.repository.first.batcher, "predicted_wait", lambda: 4.2)
    status, body, headers = await classify(session, node, png())
    assert (status, body["reason"], body["wait_ms"]) == (503, "overloaded", 4200)
    assert headers["Retry-After"] == "3"


async def test_too_many_requests_at_once_are_refused_before_their_bodies(node, session, png):
    node.admission._max_requests = 0
    status, _, headers = await classify(session, node, png())
    assert status == 503
    assert headers["Retry-After"] == "1"


async def test_a_client_that_leaves_is_dropped_before_its_turn(node, session, png, runtime, until, queued):
    runtime.gate.clear()
    warm = len(runtime.batches)
    first = asyncio.ensure_future(classify(session, node, png()))
    await until(lambda: len(runtime.batches) == warm + 1)
    leaving = asyncio.ensure_future(classify(session, node, png()))
    await until(lambda: queued(node) == 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await until(lambda: any(each.transport is None for each in node._runner.server.connections))
    runtime.gate.set()
    assert (await first)[0] == 200
    await until(lambda: node.admission.requests == 0)
    assert len(runtime.batches) == warm + 1
    assert 'code="499"' in node.metrics.text().decode()


async def test_a_model_that_fails_is_a_500_without_a_traceback_and_the_node_goes_on(node, session, png, runtime):
    runtime.poison = 200
    status, body, _ = await classify(session, node, png(200))
    assert (status, body["reason"]) == (500, "internal")
    assert "poison" not in body["error"]
    assert (await classify(session, node, png(30)))[0] == 200
    status, body, _ = await classify(session, node, form(("a", png(200)), ("b", png(30))))
    assert status == 200
    assert [result.get("reason") for result in body["results"]] == ["internal", None]


async def test_garbage_that_is_no_http_hurts_nobody(node, session, png, caplog):
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    assert b" 400 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert not [record for record in caplog.records if record.exc_info]
    assert (await classify(session, node, png()))[0] == 200


async def test_probes_answer_while_every_runner_is_busy(node, session, png, runtime, until):
    runtime.gate.clear()
    busy = [asyncio.ensure_future(classify(session, node, png())) for _ in range(5)]
    await until(lambda: node.admission.requests == 5)
    async with session.get(f"{node.url}/readyz") as reply:
        assert (reply.status, (await reply.json())["status"]) == (200, "ready")
    async with session.get(f"{node.url}/healthz") as reply:
        body = await reply.json()
        assert (reply.status, body["status"], body["state"]) == (200, "alive", "ready")
    runtime.gate.set()
    await asyncio.gather(*busy)


async def test_it_is_alive_but_not_ready_while_it_loads(make_node, session, png, runtime, until):
    runtime.gate.clear()  # warm-up waits
    node = make_node()
    starting = asyncio.ensure_future(node.start())
    await until(lambda: runtime.batches)
    async with session.get(f"{node.url}/healthz") as reply:
        assert (reply.status, (await reply.json())["state"]) == (200, "warming")
    async with session.get(f"{node.url}/readyz") as reply:
        assert reply.status == 503
    status, body, headers = await classify(session, node, png())
    assert (status, body["reason"], headers["Retry-After"]) == (503, "overloaded", "1")
    runtime.gate.set()
    await starting
    assert (await classify(session, node, png()))[0] == 200


async def test_metrics_count_what_happened_and_no_probes(node, session, png):
    await classify(session, node, png())
    await classify(session, node, form(("a", png()), ("b", b"bad")))
    await classify(session, node, b"bad")
    await session.get(f"{node.url}/readyz")
    async with session.get(f"{node.url}/metrics") as reply:
        families = {family.name: family for family in text_string_to_metric_families(await reply.text())}
    totals = {
        tuple(sample.labels.values()): sample.value
        for sample in families["node_requests"].samples
        if sample.name.endswith("_total")
    }
    assert totals == {("200", "digits", "1"): 2, ("422", "digits", "1"): 1}
    rejected = {s.labels["reason"]: s.value for s in families["node_rejected"].samples if s.name.endswith("_total")}
    assert rejected == {"queue_full": 0, "deadline": 0, "too_large": 0, "bad_image": 2, "draining": 0}
    for name in (
        "node_request_duration_seconds",
        "node_queue_wait_seconds",
        "node_decode_seconds",
        "node_inference_seconds",
        "node_batch_size",
        "node_queue_depth",
        "node_inflight_requests",
        "node_ready",
        "node_draining",
        "node_model_info",
        "node_model_load_seconds",
        "node_registry_sync_failures",
    ):
        assert name in families
    assert families["node_ready"].samples[0].value == 1
    assert families["node_model_info"].samples[0].labels == {"model": "digits", "version": "1", "runtime": "scripted"}


async def test_a_port_in_use_is_known_before_anything_is_loaded(node, make_node, runtime):
    loaded = len(runtime.batches)
    second = make_node(port=node.port)
    with pytest.raises(PortInUse, match=f"port {node.port} "):
        await second.start()
    assert len(runtime.batches) == loaded


async def test_the_bytes_of_an_image_that_waits_decoded_are_given_back(node, session, photo, runtime, until):
    runtime.gate.clear()
    warm = len(runtime.batches)
    waiting = [asyncio.ensure_future(classify(session, node, photo)) for _ in range(3)]
    await until(lambda: len(runtime.batches) == warm + 1 and node.admission.requests == 3 and node.admission.bytes == 0)
    runtime.gate.set()
    assert {status for status, _, _ in await asyncio.gather(*waiting)} == {200}


async def test_a_held_body_is_given_back_whatever_happens(node, session, png):
    for data in (png(), b"bad", form(("a", png())), b""):
        await classify(session, node, data)
    assert node.admission.snapshot()["bytes"] == 0
    assert node.admission.snapshot()["requests"] == 0


def test_what_a_refusal_says_stands_on_its_class():
    refusal = Overloaded("busy", retry_after=7)
    assert (refusal.status, refusal.reason, refusal.retryable) == (503, "overloaded", True)
