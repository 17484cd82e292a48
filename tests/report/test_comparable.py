"""What is refused, and what the reader of a comparison is told."""

from dataclasses import replace

import pytest

from report.sources import read
from tests.report.contest_folder import HASH, configuration, curve, write_run
from tests.report.studies import BASE, FIVE, a_run, a_study, changed, rows


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
