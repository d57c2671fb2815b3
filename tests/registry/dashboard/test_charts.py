"""Charts: what is drawn, what is said of it in words, and that nothing unmeasured is drawn."""

import math
import re
from xml.etree import ElementTree as ET

import pytest

from registry.dashboard.charts import health_bar, histogram, sparkline, timeline
from registry.dashboard.model import Quantiles

NOW = 1_700_000_000.0


def line(*values, every=10.0):
    return [(NOW - every * (len(values) - 1 - number), value) for number, value in enumerate(values)]


def label(drawing):
    return ET.fromstring(drawing).get("aria-label")


def shapes(drawing, kind):
    return [each for each in ET.fromstring(drawing).iter() if each.get("class") == kind]


def strokes(drawing):
    (found,) = shapes(drawing, "line")
    return [
        [tuple(map(float, point.split())) for point in stroke.removesuffix("h0").split("L")]
        for stroke in found.get("d").split("M")[1:]
    ]


def said(drawing):
    return [each.text for each in ET.fromstring(drawing).iter() if each.tag == "text"]


def test_a_sparkline_begins_at_zero_and_ends_at_the_newest_point():
    (stroke,) = strokes(sparkline(line(0, 5, 10)))
    assert [y for _, y in stroke] == [22, 12, 2]
    assert stroke[-1][0] == 95
    assert label(sparkline(line(0, 5, 10))) == "requests/s: 10 at last, 0 to 10 within 20 s"


def test_a_gap_is_a_gap_and_a_single_point_a_dot():
    drawing = sparkline(line(1, 2, None, 3, None, 4))
    assert [len(each) for each in strokes(drawing)] == [2, 1, 1]
    assert shapes(drawing, "line")[0].get("d").count("h0") == 2
    assert label(drawing).endswith(", with gaps")


def test_time_that_nobody_looked_at_is_not_bridged():
    assert len(strokes(sparkline([(NOW - 300, 1.0), (NOW - 290, 1.0), (NOW, 1.0)]))) == 2


def test_what_is_older_than_a_quarter_of_an_hour_is_left_out():
    (stroke,) = strokes(sparkline([(NOW - 1000, 99.0), (NOW - 10, 1.0), (NOW, 1.0)]))
    assert len(stroke) == 2
    assert "99" not in label(sparkline([(NOW - 1000, 99.0), (NOW, 1.0)]))


@pytest.mark.parametrize("points", [[], line(None, None), line(math.nan, math.inf)])
def test_without_anything_measured_no_line_is_drawn(points):
    for drawing in (sparkline(points), timeline(points, "ms", "p95")):
        assert shapes(drawing, "line") == []
        assert label(drawing).endswith("nothing measured yet")
        assert "nan" not in drawing
        assert "inf" not in drawing


def test_nothing_but_zeroes_lies_on_the_ground():
    (stroke,) = strokes(timeline(line(0, 0), "requests/s", "Requests"))
    assert [y for _, y in stroke] == [132, 132]


def test_a_timeline_has_a_round_top_and_hours_in_utc():
    drawing = timeline(line(*range(70)), "requests/s", "Requests")
    assert said(drawing)[:4] == ["requests/s", "0", "50", "100"]
    assert said(drawing)[4:] == ["21:58", "22:03", "22:08", "22:13 UTC"]
    assert label(drawing) == "Requests, requests/s: 69 at last, 0 to 69 within 12 min"


def test_milliseconds_become_seconds_where_that_is_shorter():
    assert said(timeline(line(1500.0), "ms", "p95"))[1:4] == ["0 ms", "1 s", "2 s"]
    assert "1.5 s at last" in label(timeline(line(1500.0), "ms", "p95"))


def test_a_line_that_has_stopped_says_so():
    assert "nothing at last, 3 to 3" in label(timeline(line(3, None), "requests/s", "Requests"))


def test_a_label_from_outside_is_text_and_bounded():
    for drawing in (
        sparkline(line(1), '"><script>\u202e' + "A" * 100_000),
        timeline(line(1), "<b>", '"><script>\u202e' + "A" * 100_000),
    ):
        assert "<script" not in drawing
        assert "<b>" not in drawing
        assert "\u202e" not in drawing
        assert len(drawing) < 3000
        assert label(drawing).startswith('"><script>')


def test_a_histogram_marks_its_quantiles_in_order_on_a_logarithmic_axis():
    marks = Quantiles(p50=10.0, p95=100.0, p99=1000.0)
    drawing = histogram([(10.0, 50), (100.0, 45), (1000.0, 5)], marks)
    places = [float(re.match(r"M([\d.]+)", each.get("d")).group(1)) for each in shapes(drawing, "mark")]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert {"p50 10 ms", "p95 100 ms", "p99 1 s"} <= set(said(drawing))
    assert label(drawing).startswith("Latencies of 100 attempts, most often 8.3 ms to 10 ms; p50 10 ms;")


def test_a_bar_stands_left_of_the_mark_at_its_upper_edge():
    drawing = histogram([(10.0, 7)], Quantiles(p50=10.0))
    (bar,), (mark,) = shapes(drawing, "bar"), shapes(drawing, "mark")
    right = float(bar.get("x")) + float(bar.get("width"))
    assert right == pytest.approx(float(re.match(r"M([\d.]+)", mark.get("d")).group(1)), abs=1.0)


def test_buckets_of_one_bar_add_up_and_bars_are_as_tall_as_their_counts():
    drawing = histogram([(9.0, 10), (9.9, 10), (50.0, 5)], Quantiles())
    heights = [float(each.get("height")) for each in shapes(drawing, "bar")]
    assert heights == [124, 31]


def test_what_is_rare_is_seen_and_what_is_absurd_stays_on_the_page():
    drawing = histogram([(1e-9, 1), (5.0, 10**9), (1e300, 1), (math.inf, 1), (4.0, 0)], Quantiles(p99=math.nan))
    bars = shapes(drawing, "bar")
    assert len(bars) == 3
    for each in bars:
        assert float(each.get("height")) >= 1
        assert 0 <= float(each.get("x")) <= 640
    assert shapes(drawing, "mark") == []


def test_an_empty_histogram_says_so():
    assert label(histogram([], Quantiles())) == "No latencies have been reported yet"
    assert said(histogram([(5.0, 0)], Quantiles())) == ["No latencies have been reported yet"]


def test_a_bar_of_health_shows_the_worst_first_and_one_among_a_thousand():
    drawing = health_bar({"passing": 999, "critical": 1, "warning": 0})
    groups = [each.get("class") for each in ET.fromstring(drawing).iter() if each.tag == "g"]
    assert groups == ["critical", "passing"]
    (critical,), (passing,) = shapes(drawing, "critical"), shapes(drawing, "passing")
    assert float(critical[0].get("width")) >= 3
    assert float(passing[0].get("x")) + float(passing[0].get("width")) == pytest.approx(119)
    assert label(drawing) == "1 critical, 999 passing"


def test_healths_differ_in_form_as_well_as_in_colour():
    drawing = ET.fromstring(health_bar({"passing": 1, "critical": 1, "warning": 1, "draining": 1}))
    forms = set()
    for group in drawing:
        (form,) = group
        own = {name: value for name, value in form.items() if name in ("height", "fill", "stroke", "stroke-dasharray")}
        forms.add((form.tag, tuple(sorted(own.items()))))
    assert len(forms) == 4


def test_no_instances_is_a_line_and_words():
    assert label(health_bar({})) == "no instances"


@pytest.mark.parametrize(
    "drawing",
    [
        sparkline(line(1, 2)),
        timeline(line(1, 2), "ms", "p95"),
        histogram([(3.0, 1)], Quantiles(p50=3.0)),
        health_bar({"passing": 1}),
    ],
)
def test_every_drawing_is_an_image_with_words_and_without_styles(drawing):
    root = ET.fromstring(drawing)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert root.get("viewBox")
    assert not any("style" in each.attrib for each in root.iter())
