"""Verdicts: what is called, what is refused, and the numbers beside it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from record import metrics
from record.runlog import read_metrics
from report.judgement import judge
from report.run import ReportError, Run
from report.sensitivity import sensitivity
from report.sources import read
from report.speedups import crossing, to_target
from report.study import Study
from tests.report.contest_folder import HASH, configuration, curve, write_contest, write_run


def a_run(arm, seed, final, *, start=5.5, steps=100, seconds=50.0, role="report", lr=1e-3, **other):
    """A run in memory whose val loss falls in a straight line."""
    at = np.linspace(0, steps, 11)
    step = np.arange(steps, dtype=float)
    config = configuration(arm, seed, steps=steps, every=10, lr=lr)
    options = {
        "name": f"{arm}-{seed}-{lr}", "source": "", "arm": arm, "role": role, "contest": "c",
        "seed": seed, "data_seed": seed, "config": config, "status": "finished", "facts": {},
        "train": {"step": step, "time/train_seconds": (step + 1) * seconds / steps,
                  "tokens": (step + 1) * 4096.0},
        "val": {"step": at, "val/loss": start + (final - start) * at / steps},
        "summary": {"final_val_loss": final, "initial_val_loss": start, "diverged": False,
                    "parameters": 842_880},
        "hashes": {"weights": f"w{seed}", "batches": f"b{seed}"},
    }  # fmt: skip
    return Run(**options | other)


def a_study(finals, **other):
    """{arm: {seed: final loss}}; the first arm is the baseline."""
    runs = [a_run(arm, seed, x) for arm, each in finals.items() for seed, x in each.items()]
    return Study(**{"name": "c", "runs": runs, "baseline": next(iter(finals)), "target": None,
                    "arms": list(finals)} | other)  # fmt: skip


def changed(study, arm, seed, **fields):
    runs = [replace(r, **fields) if (r.arm, r.seed) == (arm, seed) else r for r in study.runs]
    return replace(study, runs=runs)


def rows(study, **options):
    return {row.arm: row for row in judge(study, **options).rows}


BASE = {1: 3.300, 2: 3.310, 3: 3.290}
FIVE = {
    "base": BASE,
    "good": {1: 3.281, 2: 3.290, 3: 3.269},
    "bad": {1: 3.341, 2: 3.350, 3: 3.329},
    "same": {1: 3.302, 2: 3.305, 3: 3.293},
}


def test_better_worse_and_no_evidence_with_paired_t_and_holm():
    found = rows(a_study(FIVE))
    assert {arm: row.comparison and row.comparison.words for arm, row in found.items()} == {
        "base": None, "good": "better", "bad": "worse", "same": "no evidence",
    }  # fmt: skip
    p = {}
    for arm in ("good", "bad", "same"):
        test = stats.ttest_rel(list(FIVE[arm].values()), list(BASE.values()))
        p[arm] = test.pvalue
        c = found[arm].comparison
        assert c.p == pytest.approx(test.pvalue)
        assert (c.low, c.high) == pytest.approx(tuple(test.confidence_interval()))
        assert c.method == "paired t"
    order = sorted(p, key=p.get)
    assert found[order[0]].comparison.p_holm == pytest.approx(3 * p[order[0]])
    assert list(found) == ["good", "base", "same", "bad"]


def test_pairs_see_what_unpaired_runs_do_not():
    study = a_study({"base": BASE, "good": {1: 3.281, 2: 3.290, 3: 3.269}})
    assert rows(study)["good"].comparison.words == "better"
    moved = a_study({"base": BASE, "good": {11: 3.281, 12: 3.290, 13: 3.269}})
    c = rows(moved)["good"].comparison
    assert (c.method, c.differences) == ("Welch", {})
    test = stats.ttest_ind([3.281, 3.290, 3.269], list(BASE.values()), equal_var=False)
    assert c.p == pytest.approx(test.pvalue)


def test_missing_pair_means_welch_and_says_so():
    c = rows(a_study({"base": BASE, "arm": {1: 3.281, 2: 3.290}}))["arm"].comparison
    assert c.method == "Welch"
    assert "2 and 3 runs, 2 pairs: compared unpaired" in c.notes


def test_one_seed_gives_no_verdict_in_words():
    judgement = judge(a_study({"base": {1: 3.3}, "arm": {1: 2.0}}))
    row = next(r for r in judgement.rows if r.arm == "arm")
    assert row.comparison.words == "no verdict: one seed cannot be told from noise"
    assert (row.std, row.low, row.comparison.p) == (None, None, None)
    assert "no verdict" in judgement.headline


def test_identical_runs_are_no_evidence():
    c = rows(a_study({"base": BASE, "again": BASE}))["again"].comparison
    assert (c.words, c.p, c.difference) == ("no evidence", 1.0, 0.0)
    assert any("equal to the last bit" in note for note in c.notes)


def test_diverged_run_makes_the_arm_infinite_unless_censored():
    study = changed(a_study(FIVE), "good", 2, status="diverged", summary={"initial_val_loss": 5.5})
    row = rows(study)["good"]
    assert (row.mean, row.n, row.diverged) == (math.inf, 3, 1)
    assert row.comparison.words == "diverged: 1 of 3 runs, so its loss counts as infinite"
    assert row.speedups["tokens"].words.startswith("not reached")
    censored = rows(study, censor_diverged=True)["good"]
    assert (censored.n, censored.diverged) == (2, 1)
    assert censored.mean == pytest.approx(3.275)
    assert any("diverged" in problem for problem in judge(study, censor_diverged=True).problems)


def test_diverged_baseline_gives_no_verdict():
    study = changed(a_study(FIVE), "base", 2, status="diverged", summary={})
    assert rows(study)["good"].comparison.words.startswith(
        "no verdict: 1 of 3 runs of the baseline"
    )


@pytest.mark.parametrize("status", ["running", "stopped", "failed", "missing"])
def test_unfinished_runs_do_not_count_and_are_said(status):
    study = changed(a_study(FIVE), "good", 2, status=status)
    row = rows(study)["good"]
    assert (row.n, row.planned, row.statuses[status]) == (2, 3, 1)
    assert "1 of 3 runs are not finished" in row.comparison.notes


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["weights", "batches"])
def test_different_hashes_for_the_same_seeds_are_refused(name):
    hashes = {"weights": "w2", "batches": "b2"} | {name: "0" * 64}
    c = rows(changed(a_study(FIVE), "good", 2, hashes=hashes))["good"].comparison
    assert c.call == "refused"
    what = "initial weights" if name == "weights" else "first batches"
    assert c.words.startswith(f"refused: {what} differ for seed 2 (base")
    assert c.p is None


def test_arm_that_starts_where_another_ended_is_refused_and_told_so():
    study = a_study(FIVE)
    first = study.of("base")[0]
    summary = {"initial_val_loss": first.summary["final_val_loss"], "final_val_loss": 3.0}
    shared = changed(study, "good", 1, summary=summary, hashes={"weights": "x", "batches": "b1"})
    words = rows(shared)["good"].comparison.words
    assert "initial weights differ for seed 1" in words
    assert "it begins at val loss 3.3, where base (seed 1) ended" in words


def test_shared_state_is_seen_without_hashes():
    study = a_study(FIVE)
    study = replace(study, runs=[replace(run, hashes={}) for run in study.runs])
    assert rows(study)["good"].comparison.words == "better"
    assert any("not proven" in note for note in rows(study)["good"].comparison.notes)
    later = changed(study, "good", 1, summary={"initial_val_loss": 3.3, "final_val_loss": 3.1})
    assert rows(later)["good"].comparison.call == "refused"


def test_sequential_study_is_refused_from_real_folders(tmp_path):
    """Arms in sequence on the same weights, as a study of 2024 trained them."""
    level = 0.0
    for arm in ("constant", "step", "cosine"):
        for seed in (1, 2):
            weights = f"{seed:08d}{HASH}" if arm == "constant" else f"{arm}{seed}{HASH}"
            hashes = {"weights": weights, "batches": f"b{seed}{HASH}"}
            losses = curve(seed, 20, 0.0) - level
            write_run(tmp_path / f"{arm}{seed}", configuration(arm, seed, steps=20), losses,
                      hashes=hashes)  # fmt: skip
        level += 2.0
    found = rows(replace(read([str(tmp_path)]), baseline="constant"))
    assert {found[arm].comparison.call for arm in ("step", "cosine")} == {"refused"}


def test_a_seed_without_effect_is_refused():
    hashes = {"weights": "w1", "batches": "b1"}
    study = changed(changed(a_study(FIVE), "good", 2, hashes=hashes), "base", 2, hashes=hashes)
    words = rows(study)["good"].comparison.words
    assert "seeds 1 and 2 have the same initial weights" in words


def longer(study, arm):
    runs = [a_run(arm, r.seed, r.summary["final_val_loss"], steps=200) if r.arm == arm else r
            for r in study.runs]  # fmt: skip
    return replace(study, runs=runs)


def test_unequal_lengths_are_refused_unless_the_contest_says_so():
    study = longer(a_study(FIVE), "good")
    words = rows(study)["good"].comparison.words
    assert words == "refused: unequal lengths: 819,200 tokens against 409,600 of the baseline"
    said = replace(study, declared={"good": {"train.total_steps": 200}})
    c = rows(said)["good"].comparison
    assert c.call == "better"
    assert any("train.total_steps is 200 against 100 (as the contest says)" in n for n in c.notes)


def test_other_configuration_is_named():
    study = a_study(FIVE)
    config = configuration("good", 2, steps=100, train__grad_clip=0.5)
    for seed in BASE:
        study = changed(study, "good", seed, config=config)
    notes = rows(study)["good"].comparison.notes
    assert "train.grad_clip is 0.5 against None (not in the contest)" in notes
    assert not any("optimizer" in note or "schedule" in note for note in notes)


def test_no_baseline_asks_with_the_arms_named():
    with pytest.raises(ReportError, match=r"give --baseline ARM, one of: base, good, bad, same"):
        judge(a_study(FIVE, baseline=None))
    with pytest.raises(ReportError, match=r"'bse' is no arm; give one of: base"):
        judge(a_study(FIVE, baseline="bse"))
    assert "one arm" in judge(a_study({"base": BASE}, baseline=None)).headline


def test_lengths_are_compared_with_the_baseline_of_the_same_length():
    runs = [
        a_run(f"{arm} @ {n}", seed, 3 + gain + seed / 100, steps=n)
        for arm, gain in (("a", 0.0), ("b", -0.1))
        for n in (100, 200)
        for seed in (1, 2)
    ]
    arms = list(dict.fromkeys(run.arm for run in runs))
    found = rows(Study("c", runs, "a", None, arms))
    assert found["b @ 200"].comparison.baseline == "a @ 200"
    assert found["a @ 200"].is_baseline
    short = rows(
        Study("c", [r for r in runs if r.arm != "a @ 200"], "a", None, arms[:1] + arms[2:])
    )
    assert short["b @ 200"].comparison.call == "refused"


# --------------------------------------------------------------------- speed-ups, costs, planner


def test_speedup_is_interpolated_on_the_val_curve():
    """Straight lines from 5.5: to 3.5 in 100 steps, to 3.0 in 100 steps at twice the time."""
    study = a_study({"base": {1: 3.5, 2: 3.5}, "arm": {1: 3.0, 2: 3.0}})
    for seed in (1, 2):
        study = changed(study, "arm", seed, train=a_run("arm", seed, 3.0, seconds=100).train)
    found = rows(study)["arm"].speedups
    assert found["tokens"].ratio == pytest.approx(1.25)  # 2.5 / 2.0
    assert found["steps"].ratio == pytest.approx(1.25)
    assert found["flops"].ratio == pytest.approx(1.25)
    assert found["seconds"].ratio == pytest.approx(0.625)
    assert (found["steps"].low, found["steps"].high) == pytest.approx((1.25, 1.25))
    worse = rows(a_study({"base": {1: 3.5, 2: 3.5}, "arm": {1: 4.0, 2: 4.0}}))["arm"]
    assert worse.speedups["tokens"].words == "not reached"
    assert worse.to_target["steps_to_target"].median == math.inf


def test_speedup_interval_covers_the_seeds():
    study = a_study({"base": {1: 3.5, 2: 3.5, 3: 3.5}, "arm": {1: 3.0, 2: 3.2, 3: 3.4}})
    s = rows(study)["arm"].speedups["steps"]
    assert s.low == pytest.approx(2.1 / 2)  # all draws the slowest seed
    assert s.high == pytest.approx(2.5 / 2)
    assert s.low < s.ratio < s.high


def test_crossing_at_the_start_and_never():
    costs, losses = np.array([[0.0, 1.0, 2.0]] * 3), np.array([[5.0, 4.0, 3.0]] * 3)
    at = crossing(costs, losses, np.array([6.0, 3.25, 2.0]))
    assert at.tolist() == [0.0, 1.75, math.inf]


@given(st.lists(st.floats(1, 9), min_size=2, max_size=30), st.floats(1, 9))
@settings(max_examples=60, deadline=None)
def test_costs_to_target_are_those_of_the_stream(values, target):
    steps = len(values) - 1
    lines = []
    for s, loss in enumerate(values):
        lines.append({"step": s, "val/loss": loss})
        if s < steps:
            lines.append({"step": s, "train/loss": 1.0, "time/train_seconds": 0.5 * (s + 1),
                          "tokens": 512 * (s + 1)})  # fmt: skip
    train = [x for x in lines if "train/loss" in x]
    run = replace(
        a_run("a", 1, 3.0),
        train={name: np.array([x[name] for x in train], dtype=float) for name in train[0]},
        val={"step": np.arange(len(values), dtype=float), "val/loss": np.array(values)},
    )
    assert to_target(run, target) == metrics.to_target(lines, target)


def test_default_target_is_the_baselines_mean_and_a_given_one_wins():
    assert judge(a_study(FIVE)).target == pytest.approx(3.3)
    assert judge(a_study(FIVE, target=4.0)).target == 4.0
    assert rows(a_study(FIVE, target=4.4))["base"].to_target["steps_to_target"].median == 50


def test_planner_pools_over_arms():
    p = judge(a_study(FIVE), wanted=[0.01]).planner
    variances = [np.var(list(each.values()), ddof=1) for each in FIVE.values()]
    assert p.sigma == pytest.approx(math.sqrt(np.mean(variances)))
    gaps = [
        np.subtract(list(FIVE[a].values()), list(BASE.values())) for a in ("good", "bad", "same")
    ]
    assert p.sigma_paired == pytest.approx(math.sqrt(np.mean([np.var(g, ddof=1) for g in gaps])))
    assert set(p.needed) == {0.01}
    assert p.detectable[5][1] < p.detectable[5][0]  # pairs need fewer seeds here


def test_sensitivity_is_wortsmans():
    losses = {1e-4: 4.0, 1e-3: 3.0, 1e-2: 3.5, 1e-1: 9.0}
    runs = [a_run("a", 101, x, role="tuning", lr=lr) for lr, x in losses.items()]
    runs.append(replace(a_run("a", 101, 1.0, role="tuning", lr=1.0), status="diverged"))
    s = sensitivity(Study("c", runs, "a", None, ["a"]), "a")
    assert s.score == pytest.approx(np.mean([4.0, 3.0, 3.5, 5.5, 5.5]) - 3.0)
    assert s.note == ""


def test_tuning_ledger_and_edges_are_in_the_rows(tmp_path):
    home = write_contest(tmp_path / "demo", {"cosine": 0.0, "wsd": 0.1}, steps=20, tuning=True)
    ledger = json.loads((home / "tuning.json").read_text())
    ledger["arms"]["wsd"]["edges"] = ["optimizer.lr"]
    (home / "tuning.json").write_text(json.dumps(ledger))
    judgement = judge(read([str(home)]))
    row = next(r for r in judgement.rows if r.arm == "wsd")
    assert (len(row.tuned.trials), row.tuned.best) == (3, {"optimizer.lr": 1e-3})
    assert row.tuned.gap == pytest.approx(0.1)
    assert set(judgement.sensitivity) == {"cosine", "wsd"}
    assert any("wsd: its best setting lies at the edge" in p for p in judgement.problems)


def test_stored_summaries_are_those_of_the_lines(tmp_path):
    home = write_contest(tmp_path / "demo", {"cosine": 0.0}, seeds=(1,), steps=20)
    run = read([str(home)]).runs[0]
    again = metrics.summarize(read_metrics(home / run.name), 20)
    assert {name: run.summary[name] for name in again} == again
