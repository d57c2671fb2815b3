import json

import pytest
from multidict import CIMultiDict

from smartclient.call import Done
from smartclient.errors import BadAnswer, BadInput, CallFailed
from smartclient.metadata import InputNames
from smartclient.testing import endpoints
from smartclient.transport import Answer, Request

[NODE] = endpoints(1)


class Server:
    """Tells the inputs of its model; ``asked`` lists the paths."""

    def __init__(self, *inputs: str) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.said: object = {"name": "digits", "platform": "", "inputs": [{"name": each} for each in inputs]}

    async def ask(self, request: Request) -> Done:
        assert request.method == "GET"
        self.asked.append(request.target)
        body = self.said if isinstance(self.said, bytes) else json.dumps(self.said).encode()
        return Done(Answer(self.status, CIMultiDict(), body), NODE, 1.0, 1.0)


@pytest.fixture
def names() -> InputNames:
    return InputNames("digits")


async def test_the_name_is_asked_for_once_per_model_and_version(names: InputNames) -> None:
    server = Server("pixels")
    for _ in range(2):
        for version in ("", "3"):
            assert await names.of("digits", version, server.ask) == "pixels"
    assert server.asked == ["/v2/models/digits", "/v2/models/digits/versions/3"]


async def test_a_name_that_proved_wrong_is_asked_for_again(names: InputNames) -> None:
    assert await names.of("digits", "", Server("pixels").ask) == "pixels"
    names.forget("digits", "")
    names.forget("never", "heard of")
    assert await names.of("digits", "", Server("image").ask) == "image"


@pytest.mark.parametrize("inputs", [[], None])
async def test_where_no_name_is_told_it_is_input(names: InputNames, inputs: object) -> None:
    server = Server()
    server.said = {"name": "digits", "inputs": inputs}
    assert await names.of("digits", "", server.ask) == "input"


async def test_a_model_with_several_inputs_wants_names(names: InputNames) -> None:
    with pytest.raises(BadInput, match=r"model 'digits' has 2 inputs \('a', 'b'\); give arrays by name"):
        await names.of("digits", "", Server("a", "b").ask)


async def test_a_refusal_is_told_and_not_kept(names: InputNames) -> None:
    server = Server("pixels")
    good, server.said, server.status = server.said, {"error": "unknown model 'digits'"}, 404
    with pytest.raises(BadInput, match="digits-1: unknown model 'digits'"):
        await names.of("digits", "", server.ask)
    server.status = 503
    with pytest.raises(CallFailed):
        await names.of("digits", "", server.ask)
    server.said, server.status = good, 200
    assert await names.of("digits", "", server.ask) == "pixels"


@pytest.mark.parametrize("said", [b"<html>", b'{"name": "\xff"}', b'{"x":' + b"[" * 100_000, {}, {"name": 1}])
async def test_a_server_that_is_another_kind_is_named(names: InputNames, said: object) -> None:
    server = Server()
    server.said = said
    with pytest.raises(BadAnswer, match=r"digits-1 .*is 'digits' the right service\?"):
        await names.of("digits", "", server.ask)
