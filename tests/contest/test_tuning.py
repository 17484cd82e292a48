"""What is tried after the grid: beyond edges, equally for all arms, and again where it is close."""

import json
import math

import pytest

from configs import ConfigError
from contest.__main__ import main
from contest.job import state
from contest.plan import check, make
from contest.tuning import most_to_come, own_setting
from record.contest import Ledger, pair_std
from tests.contest import tiny
from tests.jobs import ROOT

TWO = {"cosine": {}, "wsd": {"schedule.name": "wsd"}}
WARMUP = "schedule.warmup_steps"
GRID = {"tuning_seeds": [101], "tune": {"optimizer.lr": [1e-3, 2e-3, 4e-3]}}


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    monkeypatch.chdir(ROOT)


def valley(**best):
    """Losses of jobs: a parabola over log2 of the rate around each arm's best, by arm."""

    def loss(job):
        return 2.0 + 0.1 * math.log2(job.trial["optimizer.lr"] / best[job.arm]) ** 2

    return loss


def carry_out(contest, out, loss, at_once=99, ask=4):
    """End tuning runs, `at_once` before each new look at the disk, until none is left."""
    while True:
        plan = make(contest, out, ask)
        left = [j for j in plan.jobs if j.role == "tuning" and state(j) == "waiting"]
        if not left:
            plan.write()
            return plan
        for job in left[:at_once]:
            tiny.ended(job, loss(job))


def rates(plan, arm, number=None):
    """Learning rates of an arm's candidates, of one round if `number` is given."""
    trials = plan.tuned[arm].candidates
    return [t.setting["optimizer.lr"] for t in trials if number in (None, t.round)]


def test_an_arm_at_its_edge_goes_outward_and_the_others_inward(shards, tmp_path):
    contest = tiny.parse(shards, TWO, **GRID)
    plan = carry_out(contest, tmp_path, valley(cosine=7e-3, wsd=2.2e-3))
    assert rates(plan, "cosine", 1) == [8e-3]
    assert rates(plan, "wsd", 1) == [pytest.approx(math.sqrt(8) * 1e-3, rel=1e-5)]
    best = {arm: tuned.best["optimizer.lr"] for arm, tuned in plan.tuned.items()}
    assert best == {"cosine": 8e-3, "wsd": 2e-3}
    ledger = Ledger.read(plan.home)
    assert (ledger.trials_per_arm, ledger.rounds, ledger.extend) == (4, 1, 1)
    assert {len([t for t in arm.trials if t.candidate]) for arm in ledger.arms.values()} == {4}
    assert ledger.arms["cosine"].edges == ("optimizer.lr",), (
        "one round was not enough, and it says so"
    )
    assert ledger.arms["cosine"].runner_up == {"optimizer.lr": 4e-3}


def test_no_arm_at_an_edge_means_no_further_trial(shards, tmp_path):
    plan = carry_out(tiny.parse(shards, TWO, **GRID), tmp_path, valley(cosine=2e-3, wsd=1.9e-3))
    assert rates(plan, "cosine") == rates(plan, "wsd") == [1e-3, 2e-3, 4e-3]
    assert not plan.pending


def test_rounds_go_on_until_no_arm_is_at_an_edge_or_they_are_used_up(shards, tmp_path):
    loss = valley(cosine=1.5e-2, wsd=2e-3)
    plan = carry_out(tiny.parse(shards, TWO, **GRID, extend=9), tmp_path / "many", loss)
    assert rates(plan, "cosine")[3:] == [8e-3, 1.6e-2, 3.2e-2]
    assert len(rates(plan, "wsd")) == 6
    assert not plan.tuned["cosine"].edges
    plan = carry_out(tiny.parse(shards, TWO, **GRID, extend=2), tmp_path / "two", loss)
    assert rates(plan, "cosine")[3:] == [8e-3, 1.6e-2]
    assert len(rates(plan, "wsd")) == 5
    plan = carry_out(tiny.parse(shards, TWO, **GRID, extend=0), tmp_path / "none", loss)
    assert len(rates(plan, "cosine")) == 3


def test_reporting_runs_wait_until_no_arm_can_get_another_trial(shards, tmp_path):
    contest = tiny.parse(shards, TWO, **GRID)
    plan = make(contest, tmp_path)
    for job in plan.jobs:
        if job.arm == "cosine":
            tiny.ended(job, valley(cosine=2e-3)(job))
    plan = make(contest, tmp_path)
    assert {job.role for job in plan.jobs} == {"tuning"}
    assert len(plan.pending) == 4


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_contest_killed_after_any_run_goes_on_with_the_same_trials(shards, tmp_path, at_once):
    """The planner's only memory is the disk: each look at it is a planner that was just started."""
    contest = tiny.parse(shards, TWO, **GRID, extend=3, tie_seeds=[102])
    loss = valley(cosine=9e-3, wsd=2.2e-3)
    calm = carry_out(contest, tmp_path / "calm", loss)
    killed = carry_out(contest, tmp_path / "killed", loss, at_once)
    assert [job.id for job in killed.jobs] == [job.id for job in calm.jobs]
    assert killed.tuned["cosine"].row() == calm.tuned["cosine"].row()


def test_untuned_setting_that_a_round_reaches_becomes_a_candidate(shards, tmp_path):
    """The base's own rate, 3e-3, runs beside the grid; it is what lies beyond 1.5e-3."""
    head = GRID | {"tune": {"optimizer.lr": [7.5e-4, 1.5e-3]}}
    plan = carry_out(tiny.parse(shards, {"cosine": {}}, **head), tmp_path, valley(cosine=3e-3))
    assert plan.tuned["cosine"].best == {"optimizer.lr": 3e-3}
    assert [(t.round, t.default) for t in plan.tuned["cosine"].candidates][2] == (1, True)


def test_an_edge_beyond_which_the_trainer_takes_no_value_asks_for_no_round(shards, tmp_path):
    head = GRID | {"tune": {"optimizer.weight_decay": [0.0, 0.1, 0.2]}}
    contest = tiny.parse(shards, {"cosine": {}}, **head)
    plan = carry_out(contest, tmp_path, lambda job: 2 + job.trial["optimizer.weight_decay"])
    assert plan.tuned["cosine"].best == {"optimizer.weight_decay": 0.0}
    assert len(plan.tuned["cosine"].candidates) == 3
    assert plan.tuned["cosine"].edges == ["optimizer.weight_decay"]


def test_nothing_is_extended_if_an_arm_tunes_words_only_since_trials_stay_equal(shards, tmp_path):
    words = {"tune": {"schedule.name": ["cosine", "linear", "wsd"]}}
    contest = tiny.parse(shards, {"cosine": {}, "words": words}, **GRID)
    assert [n for n in contest.notices if "words tunes no list of numbers" in n]
    plan = carry_out(contest, tmp_path, lambda job: 2 - job.trial.get("optimizer.lr", 0))
    assert len(rates(plan, "cosine")) == 3
    assert not plan.pending


def test_an_arm_whose_trials_all_diverged_does_not_hold_up_the_others(shards, tmp_path):
    contest = tiny.parse(shards, TWO, **GRID)
    plan = make(contest, tmp_path)
    for job in plan.jobs:
        tiny.ended(job, *((None, "diverged") if job.arm == "wsd" else (valley(cosine=9e-3)(job),)))
    plan = carry_out(contest, tmp_path, valley(cosine=9e-3))
    assert rates(plan, "cosine", 1) == [8e-3]
    assert plan.problems == [
        "arm 'wsd': all 3 trials failed or diverged; it has no setting to report with"
    ]


# ------------------------------------------------------------------------------------------- ties


def noisy(levels, noise):
    """Losses of jobs: a level for each rate, and noise for some (rate, seed)."""

    def loss(job):
        lr = job.trial["optimizer.lr"]
        return levels.get(lr, 9.0) + noise.get((lr, job.seed), 0.0)

    return loss


def test_with_one_tuning_seed_the_best_two_are_run_with_the_tie_seeds(shards, tmp_path):
    contest = tiny.parse(shards, {"cosine": {}}, **GRID, tie_seeds=[102, 103])
    levels = {1e-3: 2.0, 2e-3: 1.99, 4e-3: 2.5}
    unlucky = noisy(levels, {(2e-3, 102): 0.05, (2e-3, 103): 0.01})
    plan = carry_out(contest, tmp_path, unlucky)
    trials = {t.setting["optimizer.lr"]: t for t in plan.tuned["cosine"].candidates}
    assert {lr: [job.seed for job in t.jobs] for lr, t in trials.items()} == {
        1e-3: [101, 102, 103], 2e-3: [101, 102, 103], 4e-3: [101],
    }  # fmt: skip
    assert plan.tuned["cosine"].best == {"optimizer.lr": 1e-3}, "the mean over all three seeds"
    row = plan.tuned["cosine"].row()
    assert row.best_loss == pytest.approx(2.0)
    assert row.runner_up == {"optimizer.lr": 2e-3}
    assert row.runner_up_gap == pytest.approx(0.01)
    assert row.gap == pytest.approx(9.0 - 2.0), "the untuned setting has the tuning seed only"
    assert [t.tied for t in row.trials] == [True, True, False, False]
    assert row.trials[1].losses == pytest.approx((1.99, 2.04, 2.0))


def test_with_several_tuning_seeds_a_tie_is_what_noise_could_turn_round(shards, tmp_path):
    head = GRID | {"tuning_seeds": [101, 102], "tie_seeds": [103]}
    levels = {1e-3: 2.03, 2e-3: 2.0, 4e-3: 2.005}
    noise = {(lr, seed): (1 if seed == 101 else -1) * s * 0.01
             for lr, s in ((1e-3, 1), (2e-3, -1), (4e-3, 0)) for seed in (101, 102)}  # fmt: skip
    plan = carry_out(tiny.parse(shards, {"cosine": {}}, **head), tmp_path, noisy(levels, noise))
    tied = [t.setting["optimizer.lr"] for t in plan.tuned["cosine"].candidates if t.tied]
    assert tied == [2e-3, 4e-3], "0.005 apart, where a difference of two means has a std of 0.009"


def test_no_tie_is_run_where_settings_differ_clearly(shards, tmp_path):
    head = GRID | {"tuning_seeds": [101, 102], "tie_seeds": [103]}
    levels = {1e-3: 2.3, 2e-3: 2.0, 4e-3: 2.2, 3e-3: 2.1}
    plan = carry_out(tiny.parse(shards, {"cosine": {}}, **head), tmp_path, noisy(levels, {}))
    assert {job.seed for job in plan.jobs if job.role == "tuning"} == {101, 102}
    assert [job.seed for job in plan.jobs if job.role == "report"] == [1, 2]


def test_reporting_runs_wait_for_the_ties_and_a_diverged_one_loses(shards, tmp_path):
    contest = tiny.parse(shards, {"cosine": {}}, **GRID, tie_seeds=[102])
    loss = noisy({1e-3: 2.0, 2e-3: 1.9, 4e-3: 2.5}, {})
    for job in make(contest, tmp_path).jobs:
        tiny.ended(job, loss(job))
    plan = make(contest, tmp_path)
    assert {job.role for job in plan.jobs} == {"tuning"}
    for job in plan.jobs:
        if job.seed == 102:
            good = job.trial["optimizer.lr"] == 1e-3
            tiny.ended(job, *((2.0,) if good else (None, "diverged")))
    assert make(contest, tmp_path).tuned["cosine"].best == {"optimizer.lr": 1e-3}


def test_std_of_a_pair_is_that_of_differences_between_settings():
    """By hand: differences of two settings on three seeds are 1, 3, 2, whose variance is 1."""
    assert pair_std([[[5, 9, 7], [4, 6, 5]]]) == pytest.approx(1.0)
    assert pair_std([[[5, 9, 7], [4, 6, 5]], [[1, 2], [1, 4]]]) == pytest.approx(
        math.sqrt((2 * 1 + 1 * 2) / 3)
    )
    assert pair_std([[[5], [4]]]) is None
    assert pair_std([[[5, 9]]]) is None


def test_std_of_a_pair_pools_more_than_two_settings():
    import numpy as np

    x = np.random.default_rng(0).normal(0, 0.3, (2000, 3)) + np.arange(3) * 5.0
    assert pair_std([x.tolist()]) == pytest.approx(0.3 * math.sqrt(2), rel=0.03)


def test_what_may_come_on_top_is_never_less_than_what_comes(shards, tmp_path):
    """Two arms, two seeds: two rounds; then every one of five trials may be close to the best."""
    head = GRID | {"tuning_seeds": [101, 102], "extend": 2, "tie_seeds": [103]}
    contest = tiny.parse(shards, TWO, **head)
    plan = make(contest, tmp_path)
    begun = {job.id for job in plan.jobs}
    assert most_to_come(contest, plan.tuned) == {
        "further trials, if a best lies at an edge": 2 * 2 * 2,
        "more seeds for trials that are close": 2 * 5,
    }
    plan = carry_out(contest, tmp_path, valley(cosine=1.0, wsd=2.1e-3))
    assert len({job.id for job in plan.jobs if job.role == "tuning"} - begun) <= 18
    assert most_to_come(contest, plan.tuned) == {}


def test_dry_run_says_what_may_come_on_top(shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("contest.estimate._is_quick", lambda *_: False)  # no probe
    path = tiny.write(tmp_path / "c.toml", shards, TWO, **GRID, tie_seeds=[102])
    assert main([str(path), "--out", str(tmp_path / "runs"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "may come on top: up to 2 tuning runs" in said
    assert "may come on top: up to 4 tuning runs" in said


# ----------------------------------------------------------------------------------------- optuna


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes"])
def test_a_search_is_widened_at_its_edge_and_the_other_arm_searches_on(shards, tmp_path, sampler):
    """Of two whole numbers the best is at an edge; wsd's best rate lies in the middle."""
    arms = {"cosine": {"tune": {WARMUP: {"low": 4, "high": 5}}}, "wsd": {"schedule.name": "wsd"}}
    ranges = {"optimizer.lr": {"low": 1e-3, "high": 1e-2, "log": True}}
    search = {"sampler": sampler, "trials": 3, "ranges": ranges}
    contest = tiny.parse(shards, arms, tuning_seeds=[101], search=search, extend=2)

    def loss(job):
        return valley(wsd=3e-3)(job) if job.arm == "wsd" else 2 - 0.1 * job.trial[WARMUP]

    plan = carry_out(contest, tmp_path / "calm", loss)
    warmups = [t.setting[WARMUP] for t in plan.tuned["cosine"].candidates]
    assert {*warmups[:3]} <= {4, 5}
    assert warmups[3] in ((6, 7) if 5 in warmups[:3] else (2, 3))
    rates = [t.setting["optimizer.lr"] for t in plan.tuned["wsd"].candidates]
    assert [t.round for t in plan.tuned["wsd"].candidates] == [0, 0, 0, 1, 2][: len(warmups)]
    assert len(rates) == len(warmups)
    assert all(1e-3 <= lr <= 1e-2 for lr in rates)
    if sampler != "tpe":
        return
    one, again = (carry_out(contest, tmp_path / name, loss, at_once=1, ask=1) for name in "ab")
    assert [job.id for job in one.jobs] == [job.id for job in again.jobs]


def test_looking_at_a_search_that_waits_for_a_further_trial_begins_none(shards, tmp_path):
    search = {"sampler": "random", "trials": 2, "ranges": {WARMUP: {"low": 4, "high": 5}}}
    contest = tiny.parse(shards, {"cosine": {}}, tuning_seeds=[101], search=search)
    for job in make(contest, tmp_path, 4).jobs:
        tiny.ended(job, 2 - 0.1 * job.trial[WARMUP])
    for _ in range(2):
        plan = make(contest, tmp_path)
        assert len(plan.pending) == 2
        assert len(plan.tuned["cosine"].candidates) == 2
    assert len(make(contest, tmp_path, 4).tuned["cosine"].candidates) == 3


# ----------------------------------------------------------------------------------- file, ledger


def test_an_older_ledger_is_read(shards, tmp_path):
    plan = carry_out(tiny.parse(shards, TWO, **GRID), tmp_path, valley(cosine=2e-3, wsd=2e-3))
    path = plan.home / "tuning.json"
    table = json.loads(path.read_text())
    for key in ("tie_seeds", "extend", "rounds"):
        del table[key]
    for arm in table["arms"].values():
        del arm["runner_up"], arm["runner_up_gap"]
        for trial in arm["trials"]:
            del trial["losses"], trial["round"], trial["tied"]
    path.write_text(json.dumps(table))
    ledger = Ledger.read(plan.home)
    assert ledger.pair_std is None
    assert ledger.arms["wsd"].best == {"optimizer.lr": 2e-3}


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"tie_seeds": [9]}, "contest.tie_seeds is given, but nothing is tuned"),
        ({"extend": 1}, "contest.extend is given, but nothing is tuned"),
        (GRID | {"tie_seeds": [101]}, "seed 101 is in contest.tuning_seeds and in contest.tie_s"),
        (GRID | {"tie_seeds": [2]}, "seed 2 is used for tuning and for reporting"),
        (GRID | {"extend": -1}, "contest.extend"),
    ],
)
def test_mistakes_with_rounds_and_ties_are_told(shards, tmp_path, head, said):
    with pytest.raises(ConfigError, match=said):
        check(tiny.parse(shards, TWO, **head), tmp_path / "tiny")


def test_keys_of_a_role_can_be_tuned_and_begin_where_the_role_is(shards):
    role = "optimizer.roles.vector"
    grid = {f"{role}.lr_ratio": [0.5, 2.0], f"{role}.eps": [1e-6, 1e-7]}
    arms = {"plain": {}, "own": {"tune": grid, "optimizer.eps": 1e-5}}
    tuned = {"tune": {"optimizer.lr": [1e-3, 2e-3, 3e-3, 4e-3]}, "tuning_seeds": [9]}
    contest = tiny.parse(shards, arms, **tuned)
    found = own_setting(contest, contest.arms[1])
    assert found == {f"{role}.lr_ratio": 1.0, f"{role}.eps": 1e-5}
