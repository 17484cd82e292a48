"""Sensitivity to the learning rate, by the definition of Wortsman et al."""

from dataclasses import replace

import numpy as np
import pytest

from record.contest import Ledger, LedgerTrial, TunedArm
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


def test_further_trials_and_tie_seeds_do_not_count():
    """They lie where the arm was good, and would make an arm that got them look less sensitive."""
    losses = {1e-4: 4.0, 1e-3: 3.0, 1e-2: 3.5}
    runs = [a_run("a", 101, x, role="tuning", lr=lr) for lr, x in losses.items()]
    later = [
        a_run("a", 101, 2.9, role="tuning", lr=2e-3),
        a_run("a", 102, 3.9, role="tuning", lr=1e-3),
    ]
    shared = {"loss": None, "status": "finished", "default": False, "candidate": True}
    trials = [
        LedgerTrial(setting={}, runs=(runs[0].name,), **shared),
        LedgerTrial(setting={}, runs=(runs[1].name, later[1].name), tied=True, **shared),
        LedgerTrial(setting={}, runs=(runs[2].name,), **shared),
        LedgerTrial(setting={}, runs=(later[0].name,), round=1, **shared),
    ]
    none = {"best": None, "best_loss": None, "edges": (), "default": {}, "default_loss": None}
    arm = TunedArm(trials=tuple(trials), gap=None, **none)
    ledger = Ledger(contest="c", method="grid", sampler=None, trials_per_arm=4, seeds=(101,),
                    arms={"a": arm})  # fmt: skip
    with_later = Study("c", [*runs, *later], "a", None, ["a"], tuning=ledger)
    assert sensitivity(with_later, "a") == sensitivity(Study("c", runs, "a", None, ["a"]), "a")
