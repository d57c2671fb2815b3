"""What ``docs/protocol.md`` promises: the vectors over this project's own client, and that the text is complete."""

import json
import random
import re
from pathlib import Path

import msgspec
import pytest

from registry.consul.codec import decode_in_steps
from registry.errors import ConfigurationError, InvalidAnswer, PermissionDenied, RegistryUnavailable
from registry.lookup import question
from registry.lookup.client.address import lookup_settings
from registry.lookup.client.directory import LookupDirectory
from registry.lookup.client.replica import Replica
from registry.lookup.wire import HEARTBEAT, PORT, ROWS_PER_LINE, decode_line, to_row
from registry.timing import SystemClock
from tests.registry.lookup_client.fake import FakeService

DOCS = Path(__file__).parent.parent / "docs"
VECTORS = json.loads((DOCS / "protocol-vectors.json").read_text())
MEANINGS = {
    "token": PermissionDenied,
    "question": ConfigurationError,
    "later": RegistryUnavailable,
    "address": InvalidAnswer,
}


def cases(group):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in VECTORS[group]])


def sent(case):
    """The bytes of a case, written as Consul and the service write JSON."""
    value = case.get("body", case.get("line"))
    return case["text"].encode() if "text" in case else json.dumps(value, separators=(",", ":")).encode()


def rows(instances):
    return [json.loads(msgspec.json.encode(to_row(each))) for each in instances]


def decode(body):
    steps = decode_in_steps([body])
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


@cases("consul")
def test_what_consul_answers(case):
    if "error" in case:
        with pytest.raises(InvalidAnswer):
            decode(sent(case))
    else:
        assert rows(decode(sent(case))) == case["instances"]


@cases("listings")
async def test_what_a_look_up_service_answers(case):
    async with FakeService() as service:
        service.answers(sent(case))
        directory = _directory(service)
        if "error" in case:
            with pytest.raises(InvalidAnswer):
                await directory.lookup("digits")
        else:
            found = await directory.lookup("digits")
            assert (found.index, found.stale_for) == (case["index"], case["stale_for"])
            assert rows(found.instances) == case["instances"]
        await directory.close()


@cases("streams")
def test_what_a_stream_brings(case):
    replica = Replica("digits")
    for step in case["steps"]:
        if "error" in step:
            before = replica.instances
            with pytest.raises(InvalidAnswer):
                replica.apply(decode_line(sent(step)))
            assert replica.instances == before
            return
        replica.apply(decode_line(sent(step)))
        assert (rows(replica.instances), replica.index) == (step["instances"], step["index"])
        assert replica.stale_for == step.get("stale_for", replica.stale_for)


@cases("refusals")
async def test_what_a_refusal_means(case):
    async with FakeService() as service:
        service.answers(sent(case), case["status"])
        directory = _directory(service)
        with pytest.raises(MEANINGS[case["meaning"]], match=case.get("body", {}).get("error")):
            await directory.lookup("digits")
        await directory.close()


def _directory(service):
    rng = random.Random(1)
    return LookupDirectory(lookup_settings(f"lookup://{service.address}", {}, rng), clock=SystemClock(), rng=rng)


def test_the_text_names_every_parameter_field_event_and_number():
    text = (DOCS / "protocol.md").read_text()
    fields = [name for group in ("listings",) for case in VECTORS[group][:2] for name in case["body"] if name != "more"]
    words = {
        *question.LISTING,
        *fields,
        "snapshot",
        "delta",
        "heartbeat",
        "resync",
        "part",
        "parts",
        "changed",
        "removed",
    }
    words |= {field.name for field in msgspec.structs.fields(type(to_row(_any_instance())))}
    assert {word for word in words if f"`{word}`" not in text and f"`{word}=" not in text} == set()
    assert {str(number) for number in (PORT, ROWS_PER_LINE, int(HEARTBEAT))} <= set(re.findall(r"\d+", text))


def _any_instance():
    from registry.testing import instance

    return instance(1)
