"""The forest plot: places on the axis, what is cut, and what is said."""

import itertools
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from report.forest import forest
from report.judgement import judge
from report.page import picture
from tests.report.studies import BASE, FIVE, a_study, changed


def lines(study):
    judgement = judge(study)
    plot = forest(judgement)
    return plot, {line.arm: line for line in plot.lines}, {r.arm: r for r in judgement.rows}


def test_places_are_in_proportion_to_the_differences():
    plot, drawn, rows = lines(a_study(FIVE))
    per_nat = (drawn["bad"].middle - drawn["good"].middle) / (
        rows["bad"].comparison.difference - rows["good"].comparison.difference
    )
    for arm in ("good", "bad", "same"):
        line, c = drawn[arm], rows[arm].comparison
        for place, value in (
            (line.middle, c.difference),
            (line.low, c.joint_low),
            (line.high, c.joint_high),
            *zip(line.dots, c.differences.values(), strict=True),
        ):
            assert place == pytest.approx(plot.zero + per_nat * value, abs=0.02)
        assert 0 < line.low < line.middle < line.high < 100
        assert line.beside == f"{c.difference:+.4f}".replace("-", "−")
    assert drawn["base"].middle == plot.zero
    assert plot.same == pytest.approx(
        (plot.zero - per_nat * 0.005, plot.zero + per_nat * 0.005), abs=0.02
    )


def test_ticks_are_round_and_few_and_have_zero():
    plot, _, _ = lines(a_study(FIVE))
    assert 2 <= len(plot.ticks) <= 5
    assert (plot.zero, "0") in plot.ticks
    places = [place for place, _ in plot.ticks]
    steps = [b - a for a, b in itertools.pairwise(places)]
    assert steps == pytest.approx([steps[0]] * len(steps), abs=0.02)
    assert all(len(text.lstrip("+−0.")) <= 2 for _, text in plot.ticks)


def test_an_arm_far_away_is_cut_with_an_arrow_and_its_number_stays():
    far = {seed: loss + 2.0 + 0.001 * seed for seed, loss in BASE.items()}
    plot, drawn, _ = lines(a_study(FIVE | {"far": far}))
    assert drawn["far"].beyond == (False, True)
    assert drawn["far"].beside == "+2.0020"
    assert drawn["far"].dots == ()
    assert drawn["bad"].beyond == (False, False)
    assert drawn["bad"].middle - drawn["good"].middle > 10
    assert "Arrows" in plot.note
    assert "Arrows" not in lines(a_study(FIVE))[0].note


def test_a_difference_without_a_verdict_has_an_arrow_too_and_no_interval_is_said():
    far = {seed: loss + 2.0 + 0.001 * seed for seed, loss in BASE.items()}
    plot, drawn, _ = lines(a_study(FIVE | {"far": far}, random_text=True))  # no losses by sequence
    assert (drawn["far"].low, drawn["far"].beyond) == (None, (False, True))
    assert drawn["bad"].beyond == (False, False)
    assert plot.said.endswith(f"far {drawn['far'].words}, +2.0020.")


def test_an_arm_without_a_difference_says_why():
    study = changed(a_study(FIVE), "bad", 2, status="diverged")
    plot, drawn, _ = lines(study)
    assert drawn["bad"].middle is None
    assert drawn["bad"].words.startswith("diverged: 1 of 3 runs")
    assert f"bad {drawn['bad'].words}" in plot.said


def test_the_sentence_has_every_arm_with_its_verdict_and_interval():
    plot, _, rows = lines(a_study(FIVE))
    c = rows["good"].comparison
    interval = f"[{c.joint_low:+.4f}, {c.joint_high:+.4f}]".replace("-", "−")
    assert f"good better, −0.0200 {interval}" in plot.said
    assert all(f"{arm} " in plot.said for arm in ("bad", "same"))


def test_nothing_tested_is_no_plot():
    assert forest(judge(a_study({"base": BASE}))) is None
    assert forest(judge(a_study({"base": {1: 3.0}, "other": {1: 3.1}}))) is None


def test_differences_of_nothing_at_all_have_an_axis():
    plot, drawn, _ = lines(a_study({"base": BASE, "twin": dict(BASE)}))
    assert drawn["twin"].middle == plot.zero
    assert all(math.isfinite(place) for place, _ in plot.ticks)
    without = forest(replace(judge(a_study({"base": BASE, "twin": dict(BASE)})), smallest=0.0))
    assert without.same is None


def test_a_best_setting_at_the_edge_of_its_grid_is_part_of_the_verdict():
    judgement = judge(a_study(FIVE))
    rows = [
        replace(row, comparison=replace(row.comparison, edges=("optimizer.lr",)))
        if row.arm == "good"
        else row
        for row in judgement.rows
    ]
    plot = forest(replace(judgement, rows=rows))
    words = {line.arm: line.words for line in plot.lines}
    assert words["good"] == "better, best at the edge of the grid in optimizer.lr"
    assert f"good {words['good']}, −0.0200" in plot.said
    assert words["bad"] == "worse"


def test_picture_is_svg_with_every_arm_its_verdict_and_its_place():
    study = a_study({**FIVE, "<&": {1: 3.4, 2: 3.41, 3: 3.39}})
    plot, drawn, _ = lines(study)
    root = ElementTree.fromstring(picture(judge(study)))
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {*drawn, "better", "worse", "baseline", plot.title} <= {*words}
    moves = [path.get("transform") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    placed = sorted(float(re.match(r"translate\(([\d.]+)", move)[1]) for move in moves)
    middles = sorted(340 + 4.8 * line.middle for line in plot.lines if line.middle is not None)
    assert placed == pytest.approx(middles, abs=0.1)
    assert picture(judge(a_study({"only": BASE}))) is None
