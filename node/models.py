"""Model folders: what is in them, which version is served, and whether the bytes are those that were written.

``models/digits/`` holds versions as whole-numbered folders; a version folder holds the model and perhaps
``model.json``, the manifest. A bare SavedModel folder, ``.keras``, ``.tflite`` or ``.onnx`` file or ``model.py`` works
without one: its size comes from its signature, its labels from a file or from counting. Versions trained here are
written elsewhere and renamed into place (``publish``); of others ``fingerprint`` tells whether they still grow. Nothing
here imports TensorFlow, nor runs any code of a model.
"""

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from node.errors import ModelError
from node.preprocessing import Colour, Layout, Preprocessing
from node.runtimes import applications
from node.runtimes.base import Signature

log = logging.getLogger(__name__)

MANIFEST = "model.json"
SCRIPT = "model.py"
Kind = Literal["keras", "saved_model", "litert", "onnx", "python", "application"]

_KINDS: dict[str, Kind] = {".keras": "keras", ".onnx": "onnx", ".tflite": "litert"}
_LOADS = re.compile(r"^(def\s+load\b|load\s*=|from\s.+\bimport\b.+\bload\b)", re.MULTILINE)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What ``model.json`` says; one written by hand needs ``format`` and ``file`` only.

    ``sha256`` is over the model file, or over all files of a SavedModel folder. A version folder's number stands above
    ``version``, so that a copied folder is a version of its own.
    """

    format: Kind
    file: str
    name: str = ""
    version: str = ""
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    sha256: str = ""
    accuracy: float | None = None
    created_with: str = ""


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was found and not yet loaded; no ``labels`` and no ``preprocessing``: nobody said.

    The ``path`` of an application is its reference, of a Python model its ``model.py``.
    """

    path: Path
    kind: Kind
    name: str
    version: str
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    sha256: str = ""
    accuracy: float | None = None


def locate(path: Path | str, labels: Path | None = None, *, version: int | None = None) -> ModelSource:
    """Find the model that ``path`` stands for, in its highest version or the one asked for.

    ``path`` may also be a reference to an application (``keras:NAME``); ``labels`` is a file with one label a line.
    Raises ``ModelError``.
    """
    source = _application(str(path)) if str(path).startswith(applications.SCHEME) else _on_disk(Path(path), version)
    return source if labels is None else msgspec.structs.replace(source, labels=_read_labels(labels))


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


def fingerprint(folder: Path) -> str:
    """Return a hash of every file's relative name, size and time of change below ``folder``.

    While somebody copies into it, two looks some time apart differ.
    """
    total = hashlib.sha256()
    for each in sorted(folder.rglob("*")):
        if "__pycache__" in each.parts:  # written by a Python model when it loads
            continue
        try:
            about = each.stat()
        except OSError:  # moved away between the listing and now: what the next look sees differs
            continue
        total.update(f"{each.relative_to(folder).as_posix()}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return total.hexdigest()


def preprocessing(source: ModelSource, signature: Signature) -> Preprocessing | None:
    """Return what to make of a picture for this model: the manifest's word, held against the model's signature.

    None for a model that takes no pictures, or of whose pictures nobody says how large they are. Raises ``ModelError``
    when manifest and model differ.
    """
    picture, wanted = signature.picture, source.preprocessing
    if wanted is None:
        return None if picture is None else _guessed(source, picture.shape)
    if picture is None:
        raise ModelError(f"{source.path} takes no pictures, but its {MANIFEST} says how to prepare them")
    if not picture.fits(wanted.shape):
        raise ModelError(
            f"{source.path} takes images of {_times(picture.shape)}, its {MANIFEST} prepares {_times(wanted.shape)}"
        )
    if picture.dtype.kind in "iu" and (wanted.scale != 1.0 or wanted.mean or wanted.std):
        raise ModelError(f"{source.path} takes whole numbers ({picture.datatype}), but its {MANIFEST} scales pixels")
    return wanted


def labels(source: ModelSource, count: int) -> tuple[str, ...]:
    """Return one label for each of the model's ``count`` scores; numbers where nobody named them.

    Raises ``ModelError`` when there are more or fewer.
    """
    said = source.labels
    if not said and source.kind == "application":
        said = applications.labels(str(source.path), count)
    if not said:
        return tuple(str(number) for number in range(count))
    if len(said) != count:
        raise ModelError(f"{source.path} gives {count} scores, but there are {len(said)} labels")
    return said


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


def _application(reference: str) -> ModelSource:
    wanted = applications.parse(reference)
    return ModelSource(path=Path(reference), kind="application", name=wanted.name, version="1")


def _on_disk(path: Path, version: int | None) -> ModelSource:
    if not path.exists():
        raise ModelError(f"there is no model at {path}; train one with: twostep train digits --out {path}")
    if path.is_file():
        return _in_file(path)
    if version is None and _whole(path):
        return _in_version(path)
    there = versions(path)
    if version is not None and version not in there:
        known = ", ".join(map(str, there)) or "none"
        raise ModelError(f"{path} has no version {version}; it has {known}")
    return _in_version(_version_folder(path, there[-1] if version is None else version) if there else path)


def _whole(path: Path) -> bool:
    """Whether a folder is a version itself, whatever numbered folders are in it."""
    return (path / MANIFEST).is_file() or (path / "saved_model.pb").is_file()


def _version_folder(path: Path, number: int) -> Path:
    plain = path / str(number)
    if plain.is_dir():
        return plain
    return next(each for each in sorted(path.iterdir()) if _is_number(each.name) and int(each.name) == number)  # 007


def _in_version(path: Path) -> ModelSource:
    if (path / MANIFEST).is_file():
        return _with_manifest(path)
    script = path / SCRIPT
    if script.is_file() and _loads(script):
        return _bare(script, "python")
    if (path / "saved_model.pb").is_file():
        return _bare(path, "saved_model")
    files = sorted(each for each in path.iterdir() if each.suffix in _KINDS and not each.name.startswith("."))
    originals = [each for each in files if each.suffix == ".keras"]  # the others beside it are made from it
    if len(originals or files) == 1:
        file = (originals or files)[0]
        return _bare(file, _KINDS[file.suffix])
    found = f"{len(files)} such files; say which in a {MANIFEST}" if files else "none of them"
    raise ModelError(
        f"{path} is not a model folder: looked for {MANIFEST}, saved_model.pb, {SCRIPT} with a function load, "
        f"one {_suffixes()} file or folders named 1, 2, 3, and found {found}"
    )


def _loads(script: Path) -> bool:
    """Whether a ``model.py`` is a model, not merely the program that made the one beside it."""
    return _LOADS.search(script.read_text(encoding="utf-8", errors="replace")) is not None


def _in_file(path: Path) -> ModelSource:
    kind: Kind | None = "python" if path.name == SCRIPT else _KINDS.get(path.suffix)
    if kind is None:
        raise ModelError(f"{path} is no model: expected a {_suffixes()} file, a SavedModel folder or a model folder")
    beside = path.parent / MANIFEST
    if beside.is_file() and (source := _with_manifest(path.parent)).path == path:
        return source
    return _bare(path, kind)


def _with_manifest(folder: Path) -> ModelSource:
    file = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    path = folder / manifest.file
    itself = manifest.format == "saved_model" and manifest.file == "."
    if not itself and (manifest.file in ("", ".", "..") or path.parent != folder or not path.exists()):
        raise ModelError(f"{file} names {manifest.file!r}, which is not in {folder}")
    name, number = _called(folder)
    return ModelSource(
        path=path,
        kind=manifest.format,
        name=manifest.name or name,
        version=number or manifest.version or "1",
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        sha256=manifest.sha256,
        accuracy=manifest.accuracy,
    )


def _bare(path: Path, kind: Kind) -> ModelSource:
    """Name a model without a manifest after its folder or file, as TensorFlow Serving's layout does."""
    folder = path if kind == "saved_model" else path.parent
    name, number = _called(folder)
    own = path.stem if kind in _KINDS.values() and not number else name
    return ModelSource(path=path, kind=kind, name=own, version=number or "1")


def _called(folder: Path) -> tuple[str, str]:
    """Return the name of the model and, if the folder is a version's, its number without leading zeros."""
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow the link that names the model
    if _is_number(whole.name):
        return whole.parent.name or "model", str(int(whole.name))
    return whole.name or "model", ""


def _guessed(source: ModelSource, shape: tuple[int | None, ...]) -> Preprocessing | None:
    """Tell channels last from channels first by which end is 1 or 3; nothing else can be meant by a picture."""
    *last, channels = shape
    layout, size = Layout.NHWC, last
    if channels not in (1, 3):
        channels, *size = shape
        layout = Layout.NCHW
    if channels not in (1, 3):
        return None
    height, width = size
    if height is None or width is None:
        log.warning("%s takes images of any size; to send it some, say which in a %s beside it", source.path, MANIFEST)
        return None
    return Preprocessing(height=height, width=width, colour=Colour.GREY if channels == 1 else Colour.RGB, layout=layout)


def _times(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape)


def _suffixes() -> str:
    return ", ".join(_KINDS)


def _read_labels(file: Path) -> tuple[str, ...]:
    try:
        return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the labels in {file} cannot be read: {error}") from error


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
