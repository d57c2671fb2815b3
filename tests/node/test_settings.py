"""What people write about models on the command line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import settings
from node.errors import ModelError
from node.repository import Model, Wanted

LATEST = Wanted()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", Wanted(latest=1)),
        ("latest:1", Wanted(latest=1)),
        ("latest:12", Wanted(latest=12)),
        ("all", Wanted(latest=0)),
        ("3", Wanted(only=(3,))),
        ("3,1, 3 ,02", Wanted(only=(1, 2, 3))),
        ("0", Wanted(only=(0,))),
    ],
)
def test_versions(text, expected):
    assert settings.wanted(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "newest", "latest:0", "latest:-1", "latest:x", "latest:²", "latest:1:2", "1,,2", "1-3", "1.5", "-1"],
)
def test_versions_that_mean_nothing_are_one_line_with_the_choices(text):
    with pytest.raises(ModelError, match="give latest, latest:2, all, or numbers: 1,3") as refusal:
        settings.wanted(text)
    assert "\n" not in str(refusal.value)


@given(st.text(max_size=20))
def test_whatever_is_written_about_versions_is_read_or_refused(text):
    try:
        wanted = settings.wanted(text)
    except ModelError:
        return
    assert wanted.only or wanted.latest >= 0


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        (Wanted(), [1, 2, 10], [10]),
        (Wanted(latest=2), [1, 2, 10], [2, 10]),
        (Wanted(latest=9), [1, 2], [1, 2]),
        (Wanted(latest=0), [1, 2, 10], [1, 2, 10]),
        (Wanted(only=(2, 7)), [1, 2, 10], [2]),
        (Wanted(only=(7,)), [1, 2], []),
        (Wanted(), [], []),
    ],
)
def test_which_versions_are_chosen_of_those_there_are(wanted, there, chosen):
    assert wanted.choose(there) == chosen


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("models/digits", "", Path("models/digits")),
        ("cats=models/pets", "cats", Path("models/pets")),
        ("a.b-c_1=x.onnx", "a.b-c_1", Path("x.onnx")),
        ("models/a=b", "", Path("models/a=b")),
        ("./a=b", "", Path("a=b")),
        ("cats=a=b", "cats", Path("a=b")),
        ("keras:MobileNetV2?weights=none", "", "keras:MobileNetV2?weights=none"),
        ("mobile=keras:MobileNetV2?weights=none", "mobile", "keras:MobileNetV2?weights=none"),
    ],
)
def test_models(text, name, path):
    labels = Path("labels.txt")
    assert settings.model(text, LATEST, labels) == Model(path=path, name=name, wanted=LATEST, labels=labels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stable=1", ("", "stable", "1")),
        ("digits:stable=12", ("digits", "stable", "12")),
        ("digits:can-ary_2=007", ("digits", "can-ary_2", "7")),
    ],
)
def test_labels(text, expected):
    assert settings.label(text) == expected


@pytest.mark.parametrize("text", ["", "stable", "stable=", "=1", "stable=x", "a:b:c=1", "sta ble=1", "stable=1.0"])
def test_labels_that_mean_nothing_are_one_line_with_an_example(text):
    with pytest.raises(ModelError, match="stable=1"):
        settings.label(text)
