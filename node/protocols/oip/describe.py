"""What the node says of itself and its models in this protocol: metadata, configuration, statistics, the index.

Shapes as Triton gives them: in metadata the batch is the first dimension and free, -1, as are others that are; in the
configuration, where ``max_batch_size`` stands for it, it is left out. Pure functions; JSON in and out is elsewhere.
"""

from collections.abc import Iterable, Sequence

from node.repository import Condition, Entry
from node.runtimes.base import Signature
from node.tally import Duration, Tally
from node.tensors import TensorSpec

SERVER = "twostep"
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
_STRING = "TYPE_STRING"  # the configuration's word for BYTES


def server(version: str) -> dict[str, object]:
    """Describe the node; ``version`` is the program's."""
    return {"name": SERVER, "version": version, "extensions": list(EXTENSIONS)}


def model(name: str, versions: Sequence[str], platform: str, signature: Signature) -> dict[str, object]:
    """Describe a model: its versions, its tensors."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": platform,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
    }


def config(name: str, platform: str, signature: Signature, *, max_batch: int) -> dict[str, object]:
    """Describe a model as Triton's model configuration would; ``max_batch`` rows run at once."""
    return {
        "name": name,
        "platform": platform,
        "backend": platform,
        "max_batch_size": max_batch,
        "input": [_field(spec) for spec in signature.inputs],
        "output": [_field(spec) for spec in signature.outputs],
        "dynamic_batching": {},
    }


def stats(name: str, version: str, tally: Tally) -> dict[str, object]:
    """Say what a version has done since it was loaded."""
    nothing = Duration()
    once_each = Duration(tally.success.count)  # what takes no time that is worth a clock
    return {
        "name": name,
        "version": version,
        "last_inference": tally.last,
        "inference_count": tally.rows,
        "execution_count": tally.runs,
        "inference_stats": {
            "success": _duration(tally.success),
            "fail": _duration(tally.fail),
            "queue": _duration(tally.queue),
            "compute_input": _duration(once_each),
            "compute_infer": _duration(tally.infer),
            "compute_output": _duration(once_each),
            "cache_hit": _duration(nothing),
            "cache_miss": _duration(nothing),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(Duration(run.count)),
                "compute_infer": _duration(run),
                "compute_output": _duration(Duration(run.count)),
            }
            for size, run in sorted(tally.batches.items())
        ],
    }


def index(entries: Iterable[Entry], *, ready: bool) -> list[dict[str, str]]:
    """List the models with the condition of each version; ``ready``: only versions that serve.

    A model without versions, for it is unloaded, is there all the same: it can be loaded.
    """
    rows = []
    for entry in entries:
        if not entry.versions and not ready:
            rows.append({"name": entry.name, "state": str(Condition.UNAVAILABLE), "reason": "unloaded"})
        for each in entry.versions.values():
            if each.served is not None or not ready:
                state = {"state": str(each.condition), "reason": each.reason}
                rows.append({"name": entry.name, "version": each.number, **state})
    return rows


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": [-1, *_sizes(spec)]}


def _field(spec: TensorSpec) -> dict[str, object]:
    kind = _STRING if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    return {"name": spec.name, "data_type": kind, "dims": _sizes(spec)}


def _sizes(spec: TensorSpec) -> list[int]:
    return [-1 if size is None else size for size in spec.shape]


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
