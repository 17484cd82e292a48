"""Which held-out text decides, and what a difference owes to that text.

A paired difference holds for the text that it was measured on. On another text of the same kind it
would be another one. The losses of every sequence (record/sequences.py) show by how much: model
x_ib = mean + seed_i + text_b + rest_ib, for seed i and block b of the text, all random.

The text is cut into BLOCKS of neighbouring sequences, because neighbours resemble each other: they
belong to one document. Its part of the variance is Vb / BLOCKS, with Vb by the method of moments
(report/crossed.py), not below zero, and BLOCKS - 1 degrees of freedom. A few large groups are what
Ibragimov and Müller advise for means of dependent data (2010, doi:10.1198/jbes.2009.08046).

An interval over seeds and text has half the width sqrt((t error)^2 + (t' error')^2): of the test
over seeds, and of the text, each with the t of its own degrees of freedom. It is never narrower
than the one over seeds; docs/results/text.md has its coverage, and what others cover.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from record.power import ALPHA
from report.crossed import is_crossed, split
from report.run import Pair
from report.statistics import Floats, Test, TextPart
from report.study import Study

BLOCKS = 8
SPLITS = {"final_test_loss": "test", "final_val_loss": "val"}  # metric: the text it is measured on

Values = Mapping[Pair, float]
Losses = Mapping[Pair, NDArray[np.float32]]  # of each sequence, by the run's seeds


def judged(study: Study) -> tuple[str, str]:
    """The loss that decides, and why if it is not the test loss.

    It is the test loss where every run that ended well has one: val has chosen the settings.
    """
    ended = [
        run
        for run in study.runs
        if run.role == "report" and run.status == "finished" and not run.diverged
    ]
    lacking = sum(run.summary.get("final_test_loss") is None for run in ended)
    if ended and not lacking:
        return "final_test_loss", ""
    if not ended:
        return "final_val_loss", ""
    who = "no run has a" if lacking == len(ended) else f"{lacking} of {len(ended)} runs have no"
    why = f"{who} test loss (data without a test split, or a run of an older version)"
    tuned = ", which also chose the settings" if study.tuning else ""
    return "final_val_loss", f"Judged on the validation text{tuned}: {why}."


def text_parts(
    study: Study, metric: str, values: Mapping[str, Values]
) -> dict[frozenset[str], TextPart | str]:
    """What the text adds to the error of a difference, for every two arms, or why it is not known.

    values: of every arm. {} where the metric is not measured on held-out text.
    """
    if metric not in SPLITS:
        return {}
    losses = {arm: _losses(study, arm, SPLITS[metric]) for arm in study.arms}
    return {
        frozenset((a, b)): _part(losses[a], losses[b], values[a].keys() & values[b].keys())
        for a, b in itertools.combinations(study.arms, 2)
    }


def _losses(study: Study, arm: str, split: str) -> Losses:
    """Of the arm's runs that have them."""
    runs = study.of(arm)
    return {run.pair: run.sequences[split] for run in runs if split in run.sequences}


def _part(mine: Losses, theirs: Losses, pairs: set[Pair]) -> TextPart | str:
    """Of two arms, over the pairs of runs that both have."""
    if len(pairs) < 2:
        return "the arms have fewer than two pairs of runs"
    if is_crossed(pairs):
        return "seeds are crossed with data seeds"
    if lacking := sum(pair not in losses for losses in (mine, theirs) for pair in pairs):
        return f"{lacking} of {2 * len(pairs)} runs have no losses by sequence"
    chosen = [losses[pair] for losses in (mine, theirs) for pair in sorted(pairs)]
    if len({len(values) for values in chosen}) > 1:
        return "the runs were evaluated on different numbers of sequences"
    if len(chosen[0]) < 2:
        return "one sequence was evaluated"
    both = np.array(chosen, dtype=np.float64)
    return text_part(both[: len(pairs)] - both[len(pairs) :])


def text_part(differences: Floats) -> TextPart:
    """differences: nats per token, (pairs, sequences), at least two by two, in the text's order."""
    blocks = min(BLOCKS, differences.shape[1])
    parts = np.array_split(differences, blocks, axis=1)
    variance = split(np.stack([part.mean(axis=1) for part in parts], axis=1)).data
    return TextPart(math.sqrt(max(0.0, variance) / blocks), blocks - 1)


def over_text(test: Test, part: TextPart) -> Test:
    """A test over seeds made one over seeds and text."""
    wide = test._replace(text=part)
    low, high = wide.interval(ALPHA)
    return wide._replace(low=low, high=high, p=_p_value(wide))


def _p_value(test: Test) -> float:
    """The level at which the interval ends at 0."""
    distance = abs(test.difference)
    if not (test.error or test.text.error) or not distance:
        return test.p

    def beyond(log_level: float) -> float:
        low, high = test.interval(math.exp(log_level))
        return (high - low) / 2 - distance

    if beyond(0.0) > 0:  # ways that share the level have an interval at level 1, too
        return 1.0
    smallest = math.log(1e-300)
    return math.exp(brentq(beyond, smallest, 0.0)) if beyond(smallest) > 0 else 0.0
