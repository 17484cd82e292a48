"""Sensitivity to the learning rate, by the definition of Wortsman et al."""

from dataclasses import replace

import numpy as np
import pytest

from report.sensitivity import sensitivity
from report.study import Study
from tests.report.studies import a_run


def test_sensitivity_is_wortsmans():
    losses = {1e-4: 4.0, 1e-3: 3.0, 1e-2: 3.5, 1e-1: 9.0}
    runs = [a_run("a", 101, x, role="tuning", lr=lr) for lr, x in losses.items()]
    runs.append(replace(a_run("a", 101, 1.0, role="tuning", lr=1.0), status="diverged"))
    s = sensitivity(Study("c", runs, "a", None, ["a"]), "a")
    assert s.score == pytest.approx(np.mean([4.0, 3.0, 3.5, 5.5, 5.5]) - 3.0)
    assert s.note == ""
