"""What TensorFlow Serving says of a model: which versions there are and how they fare, what they take and give.

The shapes are those of its ``GetModelStatusResponse`` and ``GetModelMetadataResponse`` in JSON; integers of 64 bits are
text there. ``name`` and ``ready`` beside the status are KServe's V1 protocol, which has the same address for it.
"""

import msgspec

from node.errors import NotFound
from node.protocols.tfserving.request import DEFAULT_SIGNATURE
from node.repository import Condition, Entry, Version
from node.runtimes.base import Signature
from node.tensors import TensorSpec

_DTYPES = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}
_STATES = {
    Condition.LOADING: "LOADING",
    Condition.READY: "AVAILABLE",
    Condition.UNLOADING: "UNLOADING",
    Condition.UNAVAILABLE: "END",
}


class Models(msgspec.Struct, frozen=True):
    """The names of the models that are here."""

    models: list[str]


class Status(msgspec.Struct, frozen=True):
    """Whether something went wrong with a version."""

    error_code: str = "OK"
    error_message: str = ""


class VersionStatus(msgspec.Struct, frozen=True):
    """One version: START, LOADING, AVAILABLE, UNLOADING or END."""

    version: str
    state: str
    status: Status


class ModelStatus(msgspec.Struct, frozen=True):
    """Every version of a model, the newest first, and whether one of them can be asked."""

    model_version_status: list[VersionStatus]
    name: str
    ready: bool


class Dim(msgspec.Struct, frozen=True):
    """One dimension; -1: of any size."""

    size: str
    name: str = ""


class Shape(msgspec.Struct, frozen=True):
    """The dimensions of a tensor, that of the batch first."""

    dim: list[Dim]
    unknown_rank: bool = False


class TensorInfo(msgspec.Struct, frozen=True):
    """One input or output."""

    dtype: str
    tensor_shape: Shape
    name: str


class SignatureDef(msgspec.Struct, frozen=True):
    """What a signature takes and gives."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    method_name: str


class SignatureDefs(msgspec.Struct, frozen=True):
    """Signatures by name."""

    signature_def: dict[str, SignatureDef]


class SignatureMetadata(msgspec.Struct, frozen=True):
    """The only kind of metadata there is."""

    signature_def: SignatureDefs


class ModelSpec(msgspec.Struct, frozen=True):
    """Which version of which model."""

    name: str
    version: str
    signature_name: str = ""


class ModelMetadata(msgspec.Struct, frozen=True):
    """The signatures of one version."""

    model_spec: ModelSpec
    metadata: SignatureMetadata


def status(entry: Entry, *, version: str = "", label: str = "") -> ModelStatus:
    """Describe the versions of a model, or the one asked for. Raises ``NotFound``."""
    if label:
        if label not in entry.labels:
            raise NotFound(f"{entry.name} has no label {label[:100]!r}; it has {', '.join(entry.labels) or 'none'}")
        version = entry.labels[label]
    found = [each for each in entry.versions.values() if version in ("", each.number)]
    if version and not found:
        raise NotFound(f"{entry.name} has no version {version[:40]!r} here")
    found.sort(key=_age)
    return ModelStatus(
        [_version(each) for each in found], entry.name, any(each.condition is Condition.READY for each in found)
    )


def metadata(name: str, version: str, signature: Signature) -> ModelMetadata:
    """Describe what a version takes and gives."""
    described = SignatureDef(
        {spec.name: _tensor(spec) for spec in signature.inputs},
        {spec.name: _tensor(spec) for spec in signature.outputs},
        "tensorflow/serving/predict",
    )
    return ModelMetadata(ModelSpec(name, version), SignatureMetadata(SignatureDefs({DEFAULT_SIGNATURE: described})))


def _age(version: Version) -> tuple[int, str]:
    return (-int(version.number) if version.number.isdigit() else 1, version.number)


def _version(version: Version) -> VersionStatus:
    fault = Status("UNKNOWN", version.reason) if version.reason else Status()
    return VersionStatus(version.number, _STATES[version.condition], fault)


def _tensor(spec: TensorSpec) -> TensorInfo:
    dims = [Dim("-1"), *(Dim("-1" if size is None else str(size)) for size in spec.shape)]
    return TensorInfo(_DTYPES[spec.datatype], Shape(dims), f"{spec.name}:0")
