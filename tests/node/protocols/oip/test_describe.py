"""What the node says of itself, held against what Triton's clients and load tester look for."""

from pathlib import Path

from node.protocols.oip import describe
from node.repository import Condition, Entry, Model, Version
from node.runtimes.base import Signature
from node.tally import Tally
from node.tensors import TensorSpec

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="image", datatype="UINT8", shape=(None, None, 3)),
        TensorSpec(name="text", datatype="BYTES", shape=()),
    ),
    outputs=(TensorSpec(name="scores", datatype="FP32", shape=(10,)),),
)


def test_the_server_names_its_extensions() -> None:
    said = describe.server("1.2.3")
    assert (said["name"], said["version"]) == ("twostep", "1.2.3")
    assert {"binary_tensor_data", "statistics", "model_repository", "classification"} <= set(said["extensions"])


def test_metadata_have_the_batch_and_free_sizes_as_minus_one() -> None:
    assert describe.model("m", ["1", "2"], "tensorflow", SIGNATURE) == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "tensorflow",
        "inputs": [
            {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
    }


def test_the_configuration_leaves_the_batch_to_its_own_number() -> None:
    said = describe.config("m", "tensorflow", SIGNATURE, max_batch=32)
    assert said["max_batch_size"] == 32
    assert said["input"] == [
        {"name": "image", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]},
        {"name": "text", "data_type": "TYPE_STRING", "dims": []},
    ]
    assert said["output"] == [{"name": "scores", "data_type": "TYPE_FP32", "dims": [10]}]


def test_statistics_count_requests_rows_and_runs_apart() -> None:
    tally = Tally()
    tally.ran(3, 0.004)
    tally.answered(2, 0.001, 0.004, 1000.5)
    tally.answered(1, 0.002, 0.004, 1000.75)
    tally.failed()
    said = describe.stats("m", "1", tally)
    assert (said["name"], said["version"], said["last_inference"]) == ("m", "1", 1_000_750)
    assert (said["inference_count"], said["execution_count"]) == (3, 1)
    spent = said["inference_stats"]
    assert spent["success"] == {"count": 2, "ns": 11_000_000}
    assert spent["queue"] == {"count": 2, "ns": 3_000_000}
    assert spent["compute_infer"] == {"count": 2, "ns": 8_000_000}
    assert spent["compute_input"] == spent["compute_output"] == {"count": 2, "ns": 0}
    assert spent["fail"]["count"] == 1
    assert said["batch_stats"] == [
        {
            "batch_size": 3,
            "compute_input": {"count": 1, "ns": 0},
            "compute_infer": {"count": 1, "ns": 4_000_000},
            "compute_output": {"count": 1, "ns": 0},
        }
    ]


def test_the_index_lists_every_version_with_its_reason_or_only_those_that_serve() -> None:
    served = Version("2", Condition.READY, served=object())  # type: ignore[arg-type]  # whatever serves
    broken = Version("3", Condition.UNAVAILABLE, "it is broken")
    there = Model(path=Path("m"))
    entries = [Entry(there, "m", {"2": served, "3": broken}), Entry(there, "gone")]
    assert describe.index(entries, ready=False) == [
        {"name": "m", "version": "2", "state": "READY", "reason": ""},
        {"name": "m", "version": "3", "state": "UNAVAILABLE", "reason": "it is broken"},
        {"name": "gone", "state": "UNAVAILABLE", "reason": "unloaded"},
    ]
    assert [each["version"] for each in describe.index(entries, ready=True)] == ["2"]
