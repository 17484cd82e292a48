"""What will the seeds of a plan show? Part of `--dry-run`; the rule is the report's."""

from __future__ import annotations

import math

from contest.job import final_loss, state
from contest.plan import Plan
from record.power import pooled_std, seeds_needed, smallest_shown

EXAMPLE = 0.0075  # nats: std of a pair in docs/results/schedulers.md


def planned_seeds(plan: Plan) -> str:
    """The difference that the planned seeds show, and the seeds that show the smallest one."""
    head = plan.contest.table
    lengths = len(head.branches.lengths) if head.branches else 1
    arms, seeds = 1 + (len(plan.contest.arms) - 1) * lengths, len(head.seeds)
    if arms == 1:
        return "seeds: one arm, nothing to compare it with"
    if head.data_seeds:
        size = f"{seeds} seeds x {len(head.data_seeds)} data seeds"
        return f"seeds: {size}, crossed; what they show is not planned for"
    paired = all(set(arm.seeds) == set(head.seeds) for arm in plan.contest.arms)
    noise, source = _noise(plan, paired)
    shown = smallest_shown(noise, seeds, arms=arms, paired=paired)
    found = f"seeds: {seeds} per arm, comparisons: {arms - 1}, {'paired' if paired else 'unpaired'}"
    if shown is None:
        return f"{found}; one seed gives no verdict"
    found += f"; they show differences from {shown:.2g} nats on with 80 % power"
    wanted = head.smallest or shown / 2
    needed = seeds_needed(noise, wanted, arms=arms, paired=paired)
    many = f"{needed} seeds" if needed else "more than 10,000 seeds"
    return f"{found}, and {wanted:.2g} nats would need {many} ({source})"


def _noise(plan: Plan, paired: bool) -> tuple[float, str]:
    """Std of differences in a pair, or of an arm's losses, and where it comes from."""
    losses: dict[str, dict[tuple[int, int], float]] = {}
    for job in plan.jobs:
        if job.role == "report" and state(job) == "finished":
            losses.setdefault(job.arm, {})[job.seed, job.data_seed] = final_loss(job)
    groups = [list(each.values()) for each in losses.values()]
    if paired:
        against = {arm.name: arm.against for arm in plan.contest.arms}
        groups = []
        for label, mine in losses.items():
            name, at, length = label.partition("@")
            base = f"{against[name] or plan.contest.table.baseline}{at}{length}"
            theirs = losses.get(base, {}) if base != label else {}
            groups.append([mine[pair] - theirs[pair] for pair in mine.keys() & theirs.keys()])
    what = "a pair" if paired else "an arm"
    noise = pooled_std([list(filter(math.isfinite, group)) for group in groups])
    if not noise:
        unknown = f"the std of {what} is not known yet"
        return EXAMPLE, f"{unknown}: as if it were {EXAMPLE} nats, as in docs/results/schedulers.md"
    return noise, f"the std of {what} is {noise:.2g} nats in the finished runs"
