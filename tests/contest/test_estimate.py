"""What a dry run says that a contest will cost."""

import pytest

from contest.estimate import Pace, _cost, _row, _size
from contest.plan import make
from tests.contest import tiny

PACE = Pace(seconds_per_step=2.0, overhead=10.0, source="")


def test_a_branch_costs_only_its_own_updates(shards, tmp_path):
    """Its trunk is another row of the table."""
    wsd = {"schedule.name": "wsd", "schedule.warmup_steps": 2}
    branches = {"arms": ["wsd"], "lengths": [20, 40]}
    plan = make(tiny.parse(shards, {"wsd": wsd}, branches=branches, seeds=[1]), tmp_path)
    known = {_size(plan.jobs[0].config): PACE}
    cost = {job.length: _cost(plan, [job], known) for job in plan.jobs if job.role == "report"}
    # constant for 0.8 of the run, and at the first update of the cool-down
    assert {length: each.seconds for length, each in cost.items()} == {
        20: 2 * (20 - 17) + 10,
        40: 2 * (40 - 33) + 10,
    }
    tokens = plan.jobs[0].config.train.batch_tokens
    assert cost[40].tokens == (40 - 33) * tokens
    trunk = [job for job in plan.jobs if job.role == "trunk"]
    assert _cost(plan, trunk, known).tokens == 33 * tokens, "every update once"


@pytest.mark.parametrize("tried", [False, True])
def test_runs_that_wait_for_the_tuning_cost_as_much_before_as_after_its_first_trial(
    shards, tmp_path, tried
):
    grid = {"tuning_seeds": [101], "tune": {"optimizer.lr": [1e-3, 3e-3]}}
    contest = tiny.parse(shards, {"cosine": {}}, seeds=[1, 2, 3], **grid)
    if tried:
        tiny.ended(make(contest, tmp_path).jobs[0], 2.0)
    plan = make(contest, tmp_path)
    known = {_size(plan.jobs[0].config): PACE}
    ((_, role, _, cost),) = _row(plan, "cosine", "report", [], known, [1, 2, 3])
    assert role == "report (after tuning)"
    steps = plan.jobs[0].config.train.total_steps
    assert (cost.runs, cost.seconds) == (3, 3 * (2 * steps + 10))
