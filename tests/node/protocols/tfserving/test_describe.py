"""What is said of a model and its versions."""

from pathlib import Path

import msgspec
import pytest

from node.errors import NotFound
from node.protocols.tfserving import describe
from node.repository import Condition, Entry, Model, Version


@pytest.fixture
def entry():
    versions = {
        "9": Version("9", Condition.READY),
        "10": Version("10", Condition.UNAVAILABLE, "its file is damaged"),
        "11": Version("11", Condition.LOADING),
        "8": Version("8", Condition.UNLOADING),
    }
    return Entry(Model(path=Path("m")), "m", versions, {"stable": "9"})


def test_every_version_is_listed_the_newest_first(entry):
    said = msgspec.to_builtins(describe.status(entry))
    assert [(each["version"], each["state"]) for each in said["model_version_status"]] == [
        ("11", "LOADING"),
        ("10", "END"),
        ("9", "AVAILABLE"),
        ("8", "UNLOADING"),
    ]
    assert said["model_version_status"][1]["status"] == {
        "error_code": "UNKNOWN",
        "error_message": "its file is damaged",
    }
    assert said["model_version_status"][2]["status"] == {"error_code": "OK", "error_message": ""}
    assert (said["name"], said["ready"]) == ("m", True)


def test_one_version_by_number_or_by_label(entry):
    for which in ({"version": "9"}, {"label": "stable"}):
        said = describe.status(entry, **which)
        assert [each.version for each in said.model_version_status] == ["9"]
        assert said.ready
    assert not describe.status(entry, version="10").ready


def test_what_is_not_there_is_not_found(entry):
    with pytest.raises(NotFound, match="no version '7'"):
        describe.status(entry, version="7")
    with pytest.raises(NotFound, match="no label 'canary'; it has stable"):
        describe.status(entry, label="canary")


def test_a_signature_is_described_as_a_signature_def(signature):
    shapes = signature(("image", "UINT8", (None, 28, 1)), outputs=(("scores", "FP32", (10,)), ("text", "BYTES", ())))
    said = msgspec.to_builtins(describe.metadata("m", "3", shapes))
    assert said["model_spec"] == {"name": "m", "signature_name": "", "version": "3"}
    definition = said["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["method_name"] == "tensorflow/serving/predict"
    assert definition["inputs"]["image"] == {
        "dtype": "DT_UINT8",
        "tensor_shape": {
            "dim": [{"size": size, "name": ""} for size in ("-1", "-1", "28", "1")],
            "unknown_rank": False,
        },
        "name": "image:0",
    }
    assert definition["outputs"]["text"]["dtype"] == "DT_STRING"
    assert definition["outputs"]["text"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]
