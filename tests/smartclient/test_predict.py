import json

import numpy as np
import pytest

from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient, BadInput, CallFailed
from smartclient.testing import Reply, ScriptedTransport

METADATA = Reply(body=json.dumps({"name": "digits", "inputs": [{"name": "pixels"}]}).encode())
OUTPUT = {"name": "y", "datatype": "INT8", "shape": [1], "data": [7]}
ANSWER = Reply(body=json.dumps({"model_name": "digits", "outputs": [OUTPUT]}).encode())
WRONG = Reply(status=400, body=b'{"error": "unexpected input"}')
ONE, TWO = instance(1), instance(2)


@pytest.fixture
def transport(clock: ManualClock) -> ScriptedTransport:
    return ScriptedTransport(clock, otherwise=ANSWER)


async def test_named_arrays_go_to_the_model_of_the_services_name(clock, transport) -> None:
    async with AsyncSmartClient("digits", ScriptedDirectory([ONE]), transport=transport, clock=clock) as client:
        result = await client.predict({"pixels": np.zeros((1, 2))})
        assert (result.output.tolist(), result.model, result.attempts) == ([7], "digits", 1)
        await client.predict({"pixels": np.zeros((1, 2))}, model="other", version="2")
    targets = [each.request.target for each in transport.sent]
    assert targets == ["/v2/models/digits/infer", "/v2/models/other/versions/2/infer"]


async def test_a_sole_array_has_the_name_of_the_models_metadata_until_a_node_refuses_it(clock, transport) -> None:
    transport.script(f"{ONE.address}:{ONE.port}", METADATA, ANSWER, ANSWER, WRONG, METADATA, ANSWER)
    async with AsyncSmartClient("digits", ScriptedDirectory([ONE]), transport=transport, clock=clock) as client:
        for _ in range(2):
            await client.predict(np.zeros(2))
        with pytest.raises(BadInput, match="unexpected input"):
            await client.predict(np.zeros(2))
        await client.predict(np.zeros(2))
    assert [each.request.method for each in transport.sent] == ["GET", "POST", "POST", "POST", "GET", "POST"]
    assert all(b'"name":"pixels"' in each.request.body for each in transport.sent if each.request.method == "POST")


async def test_a_model_one_node_lacks_is_asked_of_another_unless_part_of_a_sequence(clock, transport) -> None:
    transport.script(f"{ONE.address}:{ONE.port}", Reply(status=404, body=b'{"error": "no version 2"}'))
    directory = ScriptedDirectory([ONE, TWO])
    async with AsyncSmartClient("digits", directory, transport=transport, clock=clock, policy="rotation") as client:
        assert max([(await client.predict({"x": np.zeros(1)}, version="2")).attempts for _ in range(2)]) == 2
        outcomes = []
        for _ in range(2):
            try:
                outcomes.append((await client.predict({"x": np.zeros(1)}, parameters={"sequence_id": 7})).attempts)
            except BadInput as error:
                outcomes.append(error.status)
    assert sorted(outcomes) == [1, 404]


async def test_an_inference_is_tried_on_another_node_but_not_in_the_middle_of_a_sequence(clock, transport) -> None:
    for node in (ONE, TWO):
        transport.script(f"{node.address}:{node.port}", Reply(status=500))
    directory = ScriptedDirectory([ONE, TWO])
    async with AsyncSmartClient("digits", directory, transport=transport, clock=clock, attempts=2) as client:
        for parameters, attempts in ((None, 2), ({"sequence_id": 7}, 1)):
            with pytest.raises(CallFailed) as caught:
                await client.predict({"x": np.zeros(1)}, parameters=parameters)
            assert len(caught.value.attempts) == attempts
