"""Arms are told apart on both grounds; names beside curves do not overlap."""

import itertools
import re

import numpy as np
import pytest

from report.drawing import BASELINE_COLOUR, COLOURS, _apart, styles
from report.figures import figures
from report.judgement import judge
from report.page import TEMPLATES
from report.series import Points, coinciding
from tests.report.studies import BASE, a_study


def luminance(colour):
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def grounds():
    """Paper and card of the light and the dark page."""
    css = (TEMPLATES / "page.css").read_text()
    return sorted(set(re.findall(r"--(?:paper|card): (#\w{6})", css)))


def test_lines_keep_a_contrast_of_three_to_one_with_both_grounds():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert len(grounds()) == 3
    for line, ground in itertools.product((*COLOURS, BASELINE_COLOUR), grounds()):
        assert contrast(line, ground) >= 3, (line, ground)


def test_twenty_arms_are_drawn_in_twenty_ways_and_neighbours_differ_in_colour_and_dashes():
    looks = list(styles(a_study({f"arm{i}": BASE for i in range(20)})).values())
    assert len({(look.colour, look.dash) for look in looks}) == 20
    for a, b in itertools.pairwise(looks[1:]):
        assert a.colour != b.colour
        assert a.dash != b.dash


def test_names_are_moved_apart_in_order_and_stay_inside():
    assert _apart([10, 100], 13, 300) == [10, 100]
    assert _apart([50, 50], 13, 300) == pytest.approx([43.5, 56.5])
    moved = _apart([2, 299, 1, 0], 13, 300)
    assert moved == pytest.approx([26, 299, 13, 0])
    assert _apart([300, 299], 13, 300) == pytest.approx([300, 287])
    assert _apart([], 13, 300) == []


def points(mean):
    x = np.asarray(mean, float)
    return Points(np.arange(len(x)), x, x, x, {})


def test_curves_that_lie_on_top_of_each_other_are_named():
    curves = {"a": points([3, 2, 1]), "b": points([3, 2.009, 1]), "c": points([3, 2.1, 1])}
    assert coinciding(curves, height=2.0) == [["a", "b"]]
    assert coinciding(curves, height=30.0) == [["a", "b", "c"]]
    assert coinciding({"a": curves["a"], "short": points([3, 2])}, height=30.0) == []


@pytest.mark.parametrize(("arms", "bands"), [(20, True), (21, False)])
def test_bands_of_more_arms_than_can_be_told_apart_are_left_out(arms, bands):
    study = a_study({f"arm{i}": {s: x + i / 100 for s, x in BASE.items()} for i in range(arms)})
    (figure,) = (f for f in figures(study, judge(study)) if f.id == "val_loss")
    assert any(trace.fill for trace in figure.plot.data) == bands
    assert ("bands of more than 20 arms" in figure.note) != bands
    assert len({trace.meta["arm"] for trace in figure.plot.data if trace.meta}) == arms
