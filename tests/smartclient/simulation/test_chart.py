import xml.etree.ElementTree as ET

import pytest

from smartclient.simulation.chart import Axis, draw
from smartclient.simulation.result import Result

SVG = "{http://www.w3.org/2000/svg}"


def result(p99: float, errors: int = 0) -> Result:
    return Result(p50_ms=1.0, p99_ms=p99, p999_ms=p99, errors=errors, spread=1.0)


RESULTS = {
    "a<b": {"rotation": result(900.0, errors=12), "probed": result(150.0), "oracle": result(120.0)},
    "other": {"rotation": result(300.0), "probed": result(200.0), "oracle": result(120.0)},
}


def test_every_bar_has_its_name_its_figure_and_a_length_that_grows_with_it() -> None:
    root = ET.fromstring(draw(RESULTS, "probed"))
    panels = root.findall(f"{SVG}g")
    words = [["".join(text.itertext()) for text in panel.findall(f"{SVG}text")] for panel in panels]
    assert words[0][0] == "a<b"
    assert {"rotation", "probed", "oracle", "900 12 failed", "150", "120"} <= set(words[0])
    assert {"300", "200", "120"} <= set(words[1])
    bars = {panel: [bar.attrib for bar in panel.findall(f"{SVG}rect")] for panel in panels}
    first, second = bars.values()
    widths = [float(bar["width"]) for bar in first]
    assert widths == sorted(widths, reverse=True)
    assert first[2]["width"] == second[2]["width"]  # one axis for all
    assert [bar["class"] for bar in first] == ["bar", "default", "oracle"]


def test_nothing_lies_outside() -> None:
    root = ET.fromstring(draw(RESULTS, "probed"))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for panel in root.findall(f"{SVG}g"):
        x, y = map(float, panel.attrib["transform"][len("translate(") : -1].split())
        for text in panel.findall(f"{SVG}text"):
            assert 0 < x + float(text.attrib["x"]) < width
            assert 0 < y + float(text.attrib["y"]) < height


def test_the_axis_is_logarithmic_between_round_figures() -> None:
    axis = Axis([45.0, 2500.0])
    assert axis.ticks == [30.0, 100.0, 300.0, 1000.0, 3000.0]
    assert axis.at(3000.0) - axis.at(300.0) == pytest.approx(axis.at(1000.0) - axis.at(100.0))


def test_one_value_has_an_axis_too() -> None:
    assert Axis([100.0]).ticks == [30.0, 100.0]
