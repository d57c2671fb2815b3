"""What people write on the command line about models, as values: pure, one line for what cannot be meant."""

import re
from pathlib import Path

from node.errors import ModelError
from node.repository import Model, Wanted

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<where>.+)")
_LABEL = re.compile(r"(?:(?P<model>[^:=]+):)?(?P<label>[A-Za-z0-9_-]+)=(?P<version>\d+)")


def model(text: str, wanted: Wanted, labels: Path | None = None) -> Model:
    """Read ``[NAME=]PATH`` or ``[NAME=]keras:APPLICATION?…``."""
    name = ""
    if not text.startswith("keras:") and (named := _NAMED.fullmatch(text)) is not None:
        name, text = named["name"], named["where"]
    return Model(path=text if text.startswith("keras:") else Path(text), name=name, wanted=wanted, labels=labels)


def wanted(text: str) -> Wanted:
    """Read ``latest``, ``latest:N``, ``all`` or version numbers with commas between. Raises ``ModelError``."""
    if text == "all":
        return Wanted(latest=0)
    word, _, count = text.partition(":")
    if word == "latest" and (not count or (count.isascii() and count.isdigit() and int(count) > 0)):
        return Wanted(latest=int(count or 1))
    numbers = [each.strip() for each in text.split(",")]
    if all(each.isascii() and each.isdigit() for each in numbers):
        return Wanted(only=tuple(sorted({int(each) for each in numbers})))
    raise ModelError(f"--versions {text} means nothing; give latest, latest:2, all, or numbers: 1,3")


def label(text: str) -> tuple[str, str, str]:
    """Read ``[MODEL:]LABEL=VERSION`` as (model, label, version). Raises ``ModelError``."""
    found = _LABEL.fullmatch(text)
    if found is None:
        raise ModelError(f"--label {text} means nothing; give LABEL=VERSION or MODEL:LABEL=VERSION: stable=1")
    return found["model"] or "", found["label"], str(int(found["version"]))
