"""Plots and pages: every point inside the figure, nothing from a network, nothing of the data that becomes markup."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.load.reporting import pages
from keyark.load.reporting.plots import HEIGHT, WIDTH, Axis, line_plot, nice_ticks, percentile_plot

AXES = {"x": Axis(label="seconds"), "y": Axis(label="ms")}
POINTS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e9)), min_size=1, max_size=30)


def svg_of(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", html, re.DOTALL)[0])


@given(st.dictionaries(st.text("ab <>&'\"", max_size=8), POINTS, min_size=1, max_size=4))
def test_every_point_lies_inside_the_figure(curves):
    figure = svg_of(line_plot(curves, **AXES))
    paths = [element.get("d") for element in figure.iter("path")]
    assert len(paths) == len(curves)
    for x, y in re.findall(r"[ML](\S+) (\S+)", " ".join(paths)):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT


@given(st.floats(1e-6, 1e12))
def test_ticks_are_few_even_and_reach_the_highest_value(highest):
    ticks = nice_ticks(highest)
    assert ticks[0] == 0
    assert ticks[-1] >= highest * 0.999
    assert 3 <= len(ticks) <= 8
    assert ticks[1] == pytest.approx(ticks[-1] / (len(ticks) - 1))


def test_larger_values_stand_higher_and_later_ones_further_right():
    path = next(svg_of(line_plot({"a": [(1, 5), (2, 10)]}, **AXES)).iter("path")).get("d")
    (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+) (\S+)", path)]
    assert x2 > x1
    assert y2 < y1


def test_each_nine_of_a_percentile_takes_the_same_width():
    figure = svg_of(percentile_plot({"a": [(0, 1), (90, 2), (99, 3), (99.9, 4)]}))
    xs = [float(x) for x in re.findall(r"[ML](\S+) ", next(figure.iter("path")).get("d"))]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert xs[2] - xs[1] == pytest.approx(xs[3] - xs[2], abs=0.2)


def test_names_do_not_become_markup():
    hostile = "<script>alert(1)</script>"
    html = line_plot({hostile: [(0, 1)]}, **AXES) + pages.note(hostile) + pages.table([hostile], [[hostile]])
    html += pages.page(hostile, lead=hostile, body=[])
    assert "<script" not in html
    assert html.count("&lt;script") >= 6


def test_a_plot_of_nothing_says_so():
    assert "not observed" in line_plot({}, **AXES)
    assert "not observed" in line_plot({"a": []}, **AXES)


def test_a_page_needs_no_network():
    html = pages.page("title", lead="lead", body=[line_plot({"a": [(0, 1), (1, 2)]}, **AXES)])
    assert not re.search(r"(src|href|@import|url\()", html)
    assert "<script" not in html
