import io
import json
from pathlib import Path

import pytest
from multidict import CIMultiDict

from smartclient.call import Done
from smartclient.errors import (
    AccessDenied,
    Attempt,
    BadAnswer,
    BadInput,
    BadOption,
    CallFailed,
    ClientError,
    DeadlineExceeded,
)
from smartclient.inference import decode, encode, read
from smartclient.testing import classified, endpoints
from smartclient.transport import Answer

[NODE] = endpoints(1)


def done(body: object, status: int = 200) -> Done:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    earlier = (Attempt("digits-9", "connection refused", 1.0),)
    return Done(Answer(status, CIMultiDict(), raw), NODE, 12.5, 11.0, earlier)


def refused(body: object, status: int) -> ClientError:
    with pytest.raises(ClientError) as caught:
        decode(done(body, status), "digits")
    return caught.value


async def test_an_image_is_a_path_bytes_or_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "seven.png"
    path.write_bytes(b"png")
    with path.open("rb") as file:
        given = [path, str(path), b"png", bytearray(b"png"), memoryview(b"png"), io.BytesIO(b"png"), file]
        assert [await read(image) for image in given] == [b"png"] * 7


async def test_what_cannot_be_read_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere.png: no such file or directory") as caught:
        await read(tmp_path / "nowhere.png")
    assert caught.value.reason == "unreadable"
    with pytest.raises(BadInput, match="is a directory"):
        await read(tmp_path)
    with pytest.raises(BadInput, match="mode 'rb'"):
        await read(io.StringIO("text"))
    with pytest.raises(BadInput, match="cannot read"):
        await read("nul\0byte")
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(BadInput, match="closed file"):
        await read(closed)


def test_the_request_is_the_raw_image_and_how_many_classes() -> None:
    request = encode(b"png", 3)
    assert (request.method, request.target, request.body) == ("POST", "/classify?top=3", b"png")


@pytest.mark.parametrize(
    ("model", "version", "query"),
    [
        ("cats", "", "top=5&model=cats"),
        ("", "2", "top=5&version=2"),
        ("\udcff", "", "top=5&model=%3F"),  # a byte of a command line that is no text
        ("cats & dogs/é+?#%", "v=1", "top=5&model=cats%20%26%20dogs%2F%C3%A9%2B%3F%23%25&version=v%3D1"),
    ],
)
def test_a_model_and_a_version_are_asked_for_by_name(model: str, version: str, query: str) -> None:
    assert encode(b"png", 5, model, version).target == f"/classify?{query}"


@pytest.mark.parametrize("top", [0, 101])
def test_an_impossible_number_of_classes_is_refused(top: int) -> None:
    with pytest.raises(BadOption, match="1 to 100"):
        encode(b"png", top)


def test_an_answer_becomes_a_classification() -> None:
    result = decode(done(classified("7", score=0.998, node="digits-a1b2").body), "digits")
    assert (result.label, result.score, result.node, result.model, result.version) == (
        "7",
        0.998,
        "digits-a1b2",
        "digits",
        "1",
    )
    assert (result.milliseconds, result.attempts) == (12.5, 2)
    assert result.predictions[0].label == "7"


def test_a_node_that_does_not_name_itself_is_named_by_its_instance() -> None:
    assert decode(done({"results": [{"predictions": [{"label": "7", "score": 1}]}]}), "digits").node == "digits-1"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        b"",
        b"[]",
        {"results": []},
        {"results": [{"predictions": []}]},
        {"results": [{"predictions": [{"label": "7"}]}]},
        {"results": [{"predictions": [{"label": 7, "score": "high"}]}]},
        {"hello": "world"},
    ],
)
def test_a_success_that_is_no_classification_names_the_server(body: object) -> None:
    error = refused(body, 200)
    assert isinstance(error, BadAnswer)
    assert "digits-1 (http://127.0.0.1:9001)" in str(error)
    assert "is 'digits' the right service?" in str(error)


@pytest.mark.parametrize(("status", "reason"), [(400, "empty"), (413, "too_large"), (422, "bad_image")])
def test_the_nodes_refusal_of_an_input_is_passed_on_in_its_words(status: int, reason: str) -> None:
    error = refused({"error": "not an image", "reason": reason, "node": "digits-a1b2"}, status)
    assert isinstance(error, BadInput)
    assert str(error) == "digits-a1b2: not an image"
    assert (error.status, error.reason, error.node) == (status, reason, "digits-a1b2")
    assert not error.retryable


@pytest.mark.parametrize("status", [401, 403])
def test_a_node_that_lets_nobody_in_says_what_to_set(status: int) -> None:
    error = refused({"error": "no token", "reason": "unauthorized"}, status)
    assert isinstance(error, AccessDenied)
    assert (
        str(error) == "digits-1 refuses access: no token; set TWOSTEP_NODE_TOKEN_FILE to a file with a token it takes"
    )
    assert (error.status, error.reason, error.node, error.retryable) == (status, "unauthorized", "digits-1", False)
    assert str(refused(b"", status)).startswith(f"digits-1 refuses access: HTTP {status}; set ")


def test_a_model_that_is_not_there_names_the_nodes_asked() -> None:
    error = refused({"error": "there is no model 'cats' here", "reason": "not_found", "node": "digits-a1b2"}, 404)
    assert isinstance(error, BadInput)
    assert str(error) == "digits-a1b2: there is no model 'cats' here (digits-9: connection refused after 1 ms)"
    assert (error.status, error.reason) == (404, "not_found")


def test_a_server_without_that_path_is_another_kind_of_server() -> None:
    assert isinstance(refused(b"404: Not Found", 404), BadAnswer)
    assert isinstance(refused(b"Method Not Allowed", 405), BadAnswer)
    assert isinstance(refused(b"", 302), BadAnswer)


@pytest.mark.parametrize(("status", "kind"), [(500, CallFailed), (503, CallFailed), (504, DeadlineExceeded)])
def test_the_last_nodes_own_trouble_is_a_failed_call_with_every_attempt(status: int, kind: type) -> None:
    error = refused({"error": "queue is full", "reason": "overloaded"}, status)
    assert type(error) is kind
    assert [each.reason for each in error.attempts] == ["connection refused", f"HTTP {status}"]
    assert "queue is full" in str(error)
    assert error.retryable
