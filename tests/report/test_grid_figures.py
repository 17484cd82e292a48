"""Maps of tuning grids in two keys."""

import pytest

from record.contest import Ledger, LedgerTrial, TunedArm
from report.drawing import styles
from report.grid_figures import grid_maps
from tests.report.studies import a_study

LR, DECAY = "optimizer.lr", "optimizer.weight_decay"


def tuned(trials, best):
    entries = [
        LedgerTrial(
            setting=setting, runs=("r",), loss=loss, default=False, candidate=True,
            status="finished" if loss else "diverged",
        )
        for setting, loss in trials
    ]  # fmt: skip
    return TunedArm(
        trials=tuple(entries), best=best, best_loss=min(x for _, x in trials if x), edges=(),
        default=trials[0][0], default_loss=None, gap=None,
    )  # fmt: skip


def study_with(**arms):
    ledger = Ledger(
        contest="c", method="grid", sampler=None, trials_per_arm=4, seeds=(101,), arms=arms
    )
    return a_study({arm: {1: 3.0, 2: 3.1} for arm in arms}, tuning=ledger)


GRID = [
    ({LR: 1e-3, DECAY: 0.1}, 3.2), ({LR: 1e-3, DECAY: 0.5}, 3.4),
    ({LR: 3e-3, DECAY: 0.1}, 3.1), ({LR: 3e-3, DECAY: 0.5}, None),
    ({LR: 9e-3, DECAY: 0.1}, 9.0),  # a further trial beyond the grid
]  # fmt: skip


def test_every_trial_is_a_cell_and_the_chosen_one_is_marked():
    other = [({LR: 0.1, DECAY: 1e-4, "optimizer.momentum": 0.9}, 3.3),
             ({LR: 0.3, DECAY: 1e-3, "optimizer.momentum": 0.9}, 3.6)]  # fmt: skip
    study = study_with(adamw=tuned(GRID, GRID[2][0]), sgd=tuned(other, other[0][0]))
    figure = grid_maps(study, styles(study))
    adamw, sgd = figure.plot.data
    assert (list(adamw.x), list(adamw.y)) == (["0.001", "0.003", "0.009"], ["0.1", "0.5"])
    assert [list(row) for row in adamw.z] == [[3.2, 3.1, 9.0], [3.4, None, None]]
    assert [list(row) for row in adamw.text] == [
        ["3.2000", "[3.1000]", "9.0000"],
        ["3.4000", "∞", ""],
    ]
    assert (list(sgd.x), list(sgd.y)) == (["0.1", "0.3"], ["0.0001", "0.001"])
    assert figure.plot.layout.xaxis.title.text == "adamw: lr"
    assert figure.plot.layout.yaxis.title.text == "weight_decay"
    axis = figure.plot.layout.coloraxis
    assert (axis.cmin, axis.cmax) == pytest.approx((3.1, 4.1))
    assert {axis.type for axis in figure.plot.select_xaxes()} == {"category"}
    assert "adamw lr = 0.003" in figure.said


@pytest.mark.parametrize(
    "trials",
    [
        [({LR: 1e-3}, 3.2), ({LR: 3e-3}, 3.1)],
        [({LR: 1e-3, DECAY: 0.1, "x": 1}, 3.2), ({LR: 3e-3, DECAY: 0.2, "x": 2}, 3.1)],
        [({LR: 1e-3, "schedule.name": "wsd"}, 3.2), ({LR: 3e-3, "schedule.name": "rex"}, 3.1)],
    ],
)
def test_a_grid_in_one_key_or_three_or_of_words_has_no_map(trials):
    study = study_with(adamw=tuned(trials, trials[0][0]))
    assert grid_maps(study, styles(study)) is None
