"""What a dry run says of the seeds."""

import pytest

from contest import seeds
from contest.plan import make
from contest.seeds import planned_seeds
from record.power import seeds_needed, smallest_shown
from tests.contest import tiny
from tests.jobs import ROOT

ARMS = {"a": {}, "b": {"optimizer.lr": 1e-3}, "c": {"optimizer.lr": 2e-3}}
NONE = "the std of a pair is not known yet: as if it were 0.0075 nats, as in docs/results"


def said(shards, tmp_path, arms=ARMS, losses=None, **head):
    """Of a contest whose reporting runs have these losses, by arm and seed."""
    plan = make(tiny.parse(shards, arms, **head), tmp_path)
    for job in plan.jobs:
        if losses:
            tiny.ended(job, losses[job.arm][job.seed - 1])
    return planned_seeds(plan)


def test_without_runs_the_noise_is_an_example_and_says_so(shards, tmp_path):
    text = said(shards, tmp_path, seeds=[1, 2, 3])
    shown, needed = smallest_shown(0.0075, 3, arms=3), seeds_needed(0.0075, 0.005, arms=3)
    assert text.startswith(
        f"seeds: 3 per arm, comparisons: 2, paired; they show differences from {shown:.2g} nats on "
        f"with 80 % power, and 0.005 nats would need {needed} seeds ({NONE}"
    )


def test_example_is_the_figure_of_the_study_that_the_line_names():
    text = (ROOT / "docs/results/schedulers.md").read_text()
    assert f"deviation of a paired difference is {seeds.EXAMPLE} nats" in text


def test_noise_is_that_of_the_finished_pairs(shards, tmp_path):
    losses = {"a": [3.0, 3.1, 3.2], "b": [3.0, 3.12, 3.24], "c": [2.9, 3.0, 3.1]}
    text = said(shards, tmp_path, losses=losses, seeds=[1, 2, 3], smallest=0.02)
    std = (0.0004 / 2) ** 0.5  # variances 0.0004 and 0, by degrees of freedom
    shown, needed = smallest_shown(std, 3, arms=3), seeds_needed(std, 0.02, arms=3)
    assert f"from {shown:.2g} nats on with 80 % power, and 0.02 nats would need {needed} " in text
    assert text.endswith(f"(the std of a pair is {std:.2g} nats in the finished runs)")


def test_a_run_that_diverged_by_its_metrics_says_nothing_about_the_noise(shards, tmp_path):
    contest = tiny.parse(shards, ARMS, seeds=[1, 2, 3])
    losses = {"a": [3.0, 3.1, 9.0], "b": [3.0, 3.12, 3.24], "c": [2.9, 3.02, 3.1]}
    plan = make(contest, tmp_path)
    for job in plan.jobs:
        tiny.ended(job, losses[job.arm][job.seed - 1], diverged=losses[job.arm][job.seed - 1] > 5)
    std = (0.0002) ** 0.5  # both rivals have differences 0.02 apart on the other two seeds
    assert f"the std of a pair is {std:.2g} nats" in planned_seeds(plan)


def test_arms_with_seeds_of_their_own_are_planned_unpaired(shards, tmp_path):
    arms = {"a": {}, "b": {"seeds": [3, 4]}}
    text = said(shards, tmp_path, arms, smallest=0.0)
    shown = smallest_shown(0.0075, 2, arms=2, paired=False)
    assert f"comparisons: 1, unpaired; they show differences from {shown:.2g} nats" in text
    assert f"and {shown / 2:.2g} nats would need" in text  # nothing is wanted: half of it


@pytest.mark.parametrize(
    ("arms", "head", "words"),
    [
        (ARMS, {"seeds": [1]}, "one seed gives no verdict"),
        ({"a": {}}, {}, "one arm, nothing to compare it with"),
        (ARMS, {"data_seeds": [7, 8]}, "crossed; what they show is not planned for"),
    ],
)
def test_what_cannot_be_planned_is_said(shards, tmp_path, arms, head, words):
    assert words in said(shards, tmp_path, arms, **head)


def test_each_length_is_a_comparison_of_its_own(shards, tmp_path):
    branches = {"arms": ["b"], "lengths": [4, 8]}
    wsd = {"schedule.name": "wsd", "schedule.decay_steps": 2, "schedule.warmup_steps": 1}
    arms = {"a": {}, "b": wsd}
    assert "comparisons: 2, paired" in said(shards, tmp_path, arms, branches=branches)
