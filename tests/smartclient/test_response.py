import pytest
from multidict import CIMultiDict

from smartclient.errors import BadAnswer, HttpError
from smartclient.response import Response


def response(body: bytes = b"", status: int = 200, content_type: str = "") -> Response:
    headers = CIMultiDict({"Content-Type": content_type})
    return Response(status=status, headers=headers, body=body, node="digits-1", attempts=1, milliseconds=1.0)


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/plain; charset=latin-1", "é"),
        ('text/plain; charset="iso-8859-1"', "é"),
        ("text/plain", "\N{REPLACEMENT CHARACTER}"),
        ("text/plain; charset=no-such-thing", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_text_follows_the_declared_charset(content_type: str, text: str) -> None:
    assert response(b"\xe9", content_type=content_type).text() == text


def test_json_is_decoded_or_told() -> None:
    assert response(b'{"a": [1]}').json() == {"a": [1]}
    with pytest.raises(BadAnswer, match="digits-1 answered 200 with something that is not JSON"):
        response(b"<html>").json()


def test_an_error_status_is_raised_only_when_asked() -> None:
    assert response().raise_for_status().ok
    refused = response(b"no\nmore", status=404)
    assert not refused.ok
    with pytest.raises(HttpError, match=r"digits-1 answered 404: no$") as caught:
        refused.raise_for_status()
    assert caught.value.status == 404
