"""An answered request is gone: nothing of it waits for the collector, whose sweeps hold the loop, and keep memory."""

import asyncio
import gc
import weakref

import pytest

from node.together import end_all
from tests.plain import Plain, post

REQUESTS = 40
FORM = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nno image\r\n--B--\r\n'


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/classify", None, {}, 200),
        ("/classify", b"no image " * 1000, {}, 422),
        ("/classify", b"", {}, 400),
        ("/classify", FORM, {"Content_Type": "multipart/form-data; boundary=B"}, 422),
        ("/classify?model=other", b"x", {}, 404),
        ("/v2/models/digits/infer", b"{}", {}, 400),
        ("/v1/models/digits:predict", b'{"instances": [{"b64": "AAAA"}]}', {}, 400),
        ("/classify", b"x" * 10, {"x_envoy_expected_rq_timeout_ms": "-1"}, 504),
    ],
)
async def test_an_answered_request_leaves_nothing_to_the_collector(node, png, path, body, headers, status):
    request = post(path, png() if body is None else body, **headers)
    async with Plain(node.port) as client:
        for _ in range(3):
            assert (await client.ask(request)).status == status
        gc.collect()
        gc.disable()
        try:
            for _ in range(REQUESTS):
                await client.ask(request)
            assert gc.collect() < REQUESTS
        finally:
            gc.enable()


async def test_what_failed_in_one_of_several_tasks_is_let_go_with_its_error():
    class Large:
        """What a request brings with it."""

    kept = []

    async def fails():
        large = Large()
        kept.append(weakref.ref(large))
        await asyncio.sleep(0)
        raise ValueError(large)

    async def several():
        tasks = [asyncio.ensure_future(fails()) for _ in range(3)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end_all(tasks)

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ValueError, match="Large"):
            await several()
        await asyncio.sleep(0)
        assert [each() for each in kept] == [None] * 3
    finally:
        gc.enable()
