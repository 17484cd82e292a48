"""The choice of settings made again: shares against closed forms."""

import math
from dataclasses import replace

import pytest
from scipy import stats

from record.contest import Ledger, LedgerTrial, TunedArm
from report.judgement import judge
from report.replay import replay as replay_of
from report.study import Study
from report.tables import sections
from report.verdict import compare, values_of
from tests.report.studies import a_study

STD = 0.01 * math.sqrt(2)  # pair_std of `pair` below
SETTINGS = [{"optimizer.lr": 1e-3 * 2**i} for i in range(3)]


def replay(known, *others):
    """Of a study with this ledger."""
    return replay_of(Study("c", [], None, None, [], tuning=known), *others)


def trial(number, losses, tied=False, candidate=True):
    return LedgerTrial(
        setting=SETTINGS[number],
        runs=tuple(f"{number}-{i}" for i in range(len(losses))),
        loss=sum(losses) / len(losses),
        status="finished",
        default=number == 0,
        candidate=candidate,
        losses=tuple(losses),
        tied=tied,
    )


def arm(*trials, best=0, edges=()):
    chosen = SETTINGS[best]
    loss = next(t.loss for t in trials if t.setting == chosen)
    return TunedArm(trials=trials, best=chosen, best_loss=loss, edges=edges,
                    default=SETTINGS[0], default_loss=None, gap=None, runner_up=SETTINGS[1],
                    runner_up_gap=0.0)  # fmt: skip


def ledger(seeds=(101, 102), **arms):
    return Ledger(
        contest="c", method="grid", sampler=None, trials_per_arm=2, seeds=seeds, arms=arms
    )


def pair(gap):
    """Two settings on two seeds, their means `gap` apart; the pair's std is STD."""
    return arm(trial(0, [2.0, 2.0]), trial(1, [2.0 + gap - 0.01, 2.0 + gap + 0.01]))


def comparisons(difference, spread=0.001, base=3.3):
    """One arm against "base": differences of three pairs around `difference`."""
    around = {1: -spread, 2: 0.0, 3: spread}
    finals = {"base": dict.fromkeys(around, base)}
    finals["mine"] = {seed: base + difference + x for seed, x in around.items()}
    study = a_study(finals)
    return compare(
        study, {name: values_of(study, name, "final_val_loss", False) for name in finals}
    )


def test_noise_of_the_fixture_is_known():
    assert ledger(mine=pair(0.02)).pair_std == pytest.approx(STD)


@pytest.mark.parametrize("gap", [0.0, 0.005, 0.02])
def test_another_setting_is_chosen_as_often_as_the_normal_distribution_says(gap):
    """Means of two seeds differ by `gap`; their difference has the std STD / sqrt(2)."""
    again = replay(ledger(mine=pair(gap)), {}, None, 0.0)
    assert again.other["mine"] == pytest.approx(stats.norm.sf(gap / (STD / math.sqrt(2))), abs=0.02)
    assert again.verdict == {}


def test_verdict_changes_where_the_other_setting_would_have_lost_the_difference():
    """-0.01 is better; 0.012 worse it is undecided; with 0.002 it would still be better."""
    known = comparisons(-0.01)
    assert known["mine"].call == "better"
    lost = replay(ledger(mine=pair(0.012)), known, None, 0.0)
    assert lost.verdict["mine"] == lost.other["mine"] > 0.1
    kept = replay(ledger(mine=pair(0.002)), known, None, 0.0)
    assert kept.other["mine"] > 0.3
    assert kept.verdict["mine"] == 0


def test_baselines_other_setting_counts_too():
    """The arm has one setting. If the baseline's other one wins, the arm is 0.02 better."""
    known = comparisons(0.001)
    assert known["mine"].call == "undecided"
    again = replay(ledger(base=pair(0.02), mine=arm(trial(0, [2.0, 2.0]))), known, None, 0.0)
    assert again.other["mine"] == 0
    assert again.verdict["mine"] == again.other["base"] > 0


def test_with_one_tuning_seed_the_noise_is_that_of_the_reporting_runs():
    one = ledger(seeds=(101,), mine=arm(trial(0, [2.0]), trial(1, [2.01])))
    again = replay(one, {}, 0.02, 0.0)
    assert again.std == 0.02
    assert "reporting runs" in again.source
    assert again.other["mine"] == pytest.approx(stats.norm.sf(0.01 / 0.02), abs=0.02)
    assert replay(one, {}, None, 0.0) is None, "no noise is known"
    assert replay(None, {}, 0.02, 0.0) is None, "nothing was tuned"


def test_a_trial_without_the_tie_seeds_is_compared_on_the_seeds_that_all_have():
    """The tie seed raises every loss by 1. Setting 2 lost by 0.5 on seeds 101 and 102."""
    tied = [trial(0, [2.0, 2.0, 3.0], tied=True), trial(1, [2.0, 2.02, 3.01], tied=True)]
    again = replay(ledger(mine=arm(*tied, trial(2, [2.5, 2.5]))), {}, None, 0.0)
    two = replay(ledger(mine=arm(*tied)), {}, None, 0.0)
    assert again.other["mine"] == pytest.approx(two.other["mine"], abs=0.03)


def test_a_setting_that_was_no_candidate_cannot_win():
    other = trial(1, [1.0, 1.02], candidate=False)
    assert replay(ledger(mine=arm(trial(0, [2.0, 2.0]), other)), {}, 0.02, 0.0).other["mine"] == 0


def test_report_prints_the_replay_and_every_trial():
    finals = {"base": {1: 3.30, 2: 3.31, 3: 3.29}, "mine": {1: 3.28, 2: 3.29, 3: 3.271}}
    tied = [trial(0, [2.0, 2.0, 2.0], tied=True), trial(1, [2.0, 2.02, 2.01], tied=True)]
    known = ledger(base=arm(*tied, trial(2, [2.5, 2.5])), mine=pair(0.5))
    known = known.model_copy(update={"extend": 2, "rounds": 1, "tie_seeds": (103,)})
    study = a_study(finals, tuning=known)
    found = {section.id: section for section in sections(study, judge(study), "report")}
    assert "while a best lay at an edge: 1 of at most 2" in found["tuning"].text
    assert "with the tie seeds too: 2." in found["tuning"].text
    replayed = found["choice"].tables[0]
    shares = {row[0].text: row[3:] for row in replayed.rows}
    assert shares["mine"] == ["0 %", "0 %"]
    assert shares["base"][1] == "–", "the baseline has no verdict"
    rows = found["ledger"].tables[0].rows
    assert len(rows) == 5
    assert rows[0][-1] == "chosen, run with more seeds, untuned"
    assert rows[1][3:] == ["3", "2.0100", "finished", "runner-up, run with more seeds"]


def test_another_metric_has_no_replayed_verdicts():
    finals = {"base": {1: 3.30, 2: 3.31, 3: 3.29}, "mine": {1: 3.28, 2: 3.29, 3: 3.271}}
    study = a_study(finals, tuning=ledger(mine=pair(0.0)))
    runs = [replace(run, summary=run.summary | {"avg_loss": 4.0}) for run in study.runs]
    again = judge(replace(study, runs=runs), metric="avg_loss").replay
    assert again.other["mine"] > 0.4
    assert again.verdict == {}
