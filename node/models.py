"""Model folders: what is in them, which version is served, and whether the bytes are those that were written.

``models/digits/`` holds versions as whole-numbered folders, the highest is served; a version folder holds the model and
``model.json``, our manifest. A bare SavedModel folder or ``.keras`` file works without a manifest: its size comes from
its signature, its labels from a file or from counting. Versions are written elsewhere and renamed into place
(``publish``), so a folder with a number for a name is always whole. Nothing here imports TensorFlow.
"""

import hashlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from node.errors import ModelError
from node.images import Colour, Preprocessing
from node.runtimes.base import Signature

MANIFEST = "model.json"
Kind = Literal["keras", "saved_model"]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What ``model.json`` says; ``sha256`` is over the model file, or over all files of a SavedModel folder."""

    format: Kind
    file: str
    name: str
    version: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    sha256: str
    accuracy: float | None = None
    created_with: str = ""


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was found and not yet loaded; ``labels`` and ``preprocessing`` are None where nobody said."""

    path: Path
    kind: Kind
    name: str
    version: str
    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    sha256: str = ""
    accuracy: float | None = None


def locate(path: Path, labels: Path | None = None) -> ModelSource:
    """Find the model that ``path`` stands for; ``labels`` is a file with one label a line. Raises ``ModelError``."""
    if not path.exists():
        raise ModelError(f"there is no model at {path}; train one with: twostep train digits --out {path}")
    source = _in_folder(path) if path.is_dir() else _in_file(path)
    if labels is not None:
        source = msgspec.structs.replace(source, labels=_read_labels(labels))
    return source


def verify(source: ModelSource) -> None:
    """Compare the model's bytes with the manifest's digest, if it has one. Raises ``ModelError``."""
    if source.sha256 and digest(source.path) != source.sha256:
        raise ModelError(
            f"{source.path} is not what its {MANIFEST} describes (sha256 differs); copy the version folder again"
        )


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their relative names, in hex."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    total = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        if each.is_file():
            total.update(f"{each.relative_to(path).as_posix()}\0{digest(each)}\0".encode())
    return total.hexdigest()


def preprocessing(source: ModelSource, signature: Signature) -> Preprocessing:
    """Return what to make of a picture for this model: the manifest's word, held against the model's signature.

    Raises ``ModelError`` when they differ, or when neither says a size.
    """
    colour = Colour.GREY if signature.channels == 1 else Colour.RGB
    size = (signature.height, signature.width)
    wanted = source.preprocessing
    if wanted is None:
        if signature.height is None or signature.width is None:
            raise ModelError(f"{source.path} takes images of any size; say which in a {MANIFEST} beside it")
        return Preprocessing(height=signature.height, width=signature.width, colour=colour)
    asked = tuple(mine or given for mine, given in zip(size, wanted.shape[:2], strict=True))
    if wanted.shape != (*asked, signature.channels):
        raise ModelError(
            f"{source.path} takes images of {signature.height} x {signature.width} x {signature.channels}, "
            f"its {MANIFEST} prepares {' x '.join(map(str, wanted.shape))}"
        )
    return wanted


def labels(source: ModelSource, count: int) -> tuple[str, ...]:
    """Return one label for each of the model's ``count`` scores; numbers where nobody named them.

    Raises ``ModelError`` when there are more or fewer.
    """
    if source.labels is None:
        return tuple(str(number) for number in range(count))
    if len(source.labels) != count:
        raise ModelError(f"{source.path} gives {count} scores, but there are {len(source.labels)} labels")
    return source.labels


def versions(folder: Path) -> list[int]:
    """Return the whole-numbered versions in a model folder, lowest first."""
    if not folder.is_dir():
        return []
    return sorted(int(each.name) for each in folder.iterdir() if _is_number(each.name) and each.is_dir())


def publish(staging: Path, folder: Path, manifest: Manifest) -> Path:
    """Rename ``staging``, a sibling of the versions, to the next free version of ``folder``, manifest included.

    The manifest's version and digest are filled in here. Returns the version folder.
    """
    sha256 = digest(staging / manifest.file)
    while True:
        number = max(versions(folder), default=0) + 1
        whole = msgspec.structs.replace(manifest, version=str(number), sha256=sha256)
        (staging / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n")
        try:
            return staging.rename(folder / str(number))
        except OSError:
            if not (folder / str(number)).exists():
                raise
            # Somebody else published this very version meanwhile.


def _in_folder(path: Path) -> ModelSource:
    if (path / MANIFEST).is_file():
        return _with_manifest(path)
    if (path / "saved_model.pb").is_file():
        return _bare(path, "saved_model")
    if numbers := versions(path):
        newest = path / str(numbers[-1])
        if not newest.is_dir():  # written with leading zeros
            newest = next(each for each in path.iterdir() if _is_number(each.name) and int(each.name) == numbers[-1])
        return _in_version(newest)
    return _in_version(path)


def _in_version(path: Path) -> ModelSource:
    if (path / MANIFEST).is_file():
        return _with_manifest(path)
    if (path / "saved_model.pb").is_file():
        return _bare(path, "saved_model")
    files = sorted(path.glob("*.keras"))
    if len(files) == 1:
        return _bare(files[0], "keras")
    found = f"{len(files)} .keras files" if files else "none of them"
    raise ModelError(
        f"{path} is not a model folder: looked for {MANIFEST}, saved_model.pb, one .keras file "
        f"or folders named 1, 2, 3, and found {found}"
    )


def _in_file(path: Path) -> ModelSource:
    if path.suffix != ".keras":
        raise ModelError(f"{path} is no model: expected a .keras file, a SavedModel folder or a model folder")
    beside = path.parent / MANIFEST
    if beside.is_file() and (source := _with_manifest(path.parent)).path == path:
        return source
    return _bare(path, "keras")


def _with_manifest(folder: Path) -> ModelSource:
    file = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    path = folder / manifest.file
    if path.parent != folder or not path.exists():
        raise ModelError(f"{file} names {manifest.file!r}, which is not in {folder}")
    return ModelSource(
        path=path,
        kind=manifest.format,
        name=manifest.name,
        version=manifest.version,
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        sha256=manifest.sha256,
        accuracy=manifest.accuracy,
    )


def _bare(path: Path, kind: Kind) -> ModelSource:
    """Name a model without a manifest after its folder or file, as TensorFlow Serving's layout does."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the link that names the model
    folder = whole if kind == "saved_model" else whole.parent
    if _is_number(folder.name):
        return ModelSource(path=path, kind=kind, name=folder.parent.name or "model", version=str(int(folder.name)))
    return ModelSource(path=path, kind=kind, name=whole.stem or "model", version="1")


def _read_labels(file: Path) -> tuple[str, ...]:
    try:
        return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the labels in {file} cannot be read: {error}") from error


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
