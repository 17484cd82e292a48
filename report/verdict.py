"""The verdict: what a study says of its arms, with its uncertainty; all numbers the pages print.

`judge(study)` returns a Judgement of plain dataclasses. docs/report.md says what each number means.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from record.runlog import flat
from report.runs import ReportError, Run, Study, plain, value_at
from report.statistics import (
    ALPHA,
    Floats,
    bca,
    detectable,
    holm,
    needed,
    paired_t,
    pooled_std,
    resampled,
    t_interval,
    welch_t,
)

Pair = tuple[int, int]  # (seed, data_seed)
Call = Literal["better", "worse", "no evidence", "no verdict", "refused", "diverged"]
AXES = ("tokens", "steps", "seconds", "flops")
METRICS = (  # lower is better in all of them
    "final_val_loss",
    "best_val_loss",
    "final_train_loss",
    "avg_loss",
    "loss_noise",
    "spike_score",
    "train_seconds",
    "step_ms_median",
    "optimizer_ms_median",
    "peak_memory_gib",
)
COSTS = (
    "train_seconds",
    "step_ms_median",
    "step_ms_p99",
    "optimizer_ms_median",
    "data_wait_ms_median",
    "tokens_per_second",
    "mfu",
    "peak_memory_gib",
    "optimizer_state_bytes_per_parameter",
)
SCORES = (
    "best_val_loss",
    "avg_loss",
    "avg_grad_norm",
    "stability_score",
    "spike_score",
    "loss_noise",
    "converged_step",
)
PLANNED_SEEDS = (2, 3, 4, 5, 8, 10, 20)
START_TOLERANCE = 0.02  # nats; the same weights on another device differ by less
# Keys in which arms may differ: what is compared, and what changes no result.
FREE = (
    "optimizer.",
    "schedule.",
    "log.",
    "checkpoint.",
    "seed",
    "data_seed",
    "train.micro_batch_size",
)


@dataclass(frozen=True)
class Spread:
    """Median and extremes over the runs of an arm."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Speedup:
    """Baseline's cost of its final loss over the arm's cost of the same loss; above 1 is faster.

    ratio: 0.0 when the arm does not get there. low, high: 95 % of the bootstrap over seeds, None
    with one seed.
    """

    ratio: float
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline. difference = arm - baseline: negative is better."""

    baseline: str
    call: Call
    words: str
    method: Literal["paired t", "Welch"] | None = None
    differences: dict[Pair, float] = field(default_factory=dict)
    difference: float | None = None
    low: float | None = None  # 95 % t interval
    high: float | None = None
    bca_low: float | None = None  # 95 % BCa bootstrap
    bca_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tuned:
    """What the tuning ledger says of an arm."""

    setting: dict[str, object]
    trials: int
    edges: tuple[str, ...]
    best_loss: float | None
    default_loss: float | None
    gap: float | None


@dataclass(frozen=True)
class Sensitivity:
    """Final val loss over learning rates: {lr: loss}, the best other setting at each rate."""

    losses: dict[float, float]
    initial: float
    score: float  # Wortsman et al. 2023
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One arm of the leaderboard. mean is +inf with a diverged run that is not censored."""

    arm: str
    is_baseline: bool
    planned: int
    statuses: dict[str, int]
    values: dict[Pair, float]
    n: int
    mean: float | None
    std: float | None
    low: float | None  # 95 % t interval of the mean
    high: float | None
    diverged: int
    costs: dict[str, Spread]
    scores: dict[str, Spread]
    to_target: dict[str, Spread]
    speedups: dict[str, Speedup]
    comparison: Comparison | None
    tuned: Tuned | None
    mean_lr_factor: float | None
    last_lr_factor: float | None


@dataclass(frozen=True)
class Planner:
    """What n seeds can show: smallest differences detectable at 80 % power, alpha 0.05."""

    sigma: float | None  # pooled over arms
    sigma_paired: float | None  # of differences, pooled over arms
    detectable: dict[int, tuple[float | None, float | None]]  # n: (unpaired, paired)
    needed: dict[float, tuple[int | None, int | None]]  # difference: n per arm


@dataclass(frozen=True)
class Judgement:
    """Everything that the pages print."""

    study: str
    metric: str
    baseline: str | None
    target: float | None
    headline: str
    rows: list[Row]
    planner: Planner
    sensitivity: dict[str, Sensitivity]
    problems: list[str]


# ------------------------------------------------------------------------------------- judging


def judge(
    study: Study,
    *,
    metric: str = "final_val_loss",
    censor_diverged: bool = False,
    wanted: Sequence[float] = (),
) -> Judgement:
    """The verdict on a study.

    metric: one of METRICS, lower is better. censor_diverged: leave diverged runs out of means,
    instead of counting them as +inf. wanted: differences for which the planner gives n.
    Errors: ReportError without a baseline where there are arms to compare.
    """
    if metric not in METRICS:
        raise ReportError(f"metric {metric!r} is not one of {', '.join(METRICS)}")
    check_baseline(study)
    values = {arm: values_of(study, arm, metric, censor_diverged) for arm in study.arms}
    base = next((baseline_of(study, arm) for arm in study.arms), None)
    target = study.target if study.target is not None else default_target(study, base)
    compared = {arm: compare(study, arm, values) for arm in study.arms}
    comparisons = adjusted({arm: c for arm, c in compared.items() if c})
    rows = [row(study, arm, values, comparisons.get(arm), target) for arm in study.arms]
    rows.sort(key=lambda r: math.inf if r.mean is None else r.mean)
    planner = plan(values, comparisons, wanted)
    problems = [*study.problems, *problems_of(study, metric, censor_diverged)]
    found = {arm: sensitivity(study, arm) for arm in dict.fromkeys(map(plain, study.arms))}
    return Judgement(
        study=study.name,
        metric=metric,
        baseline=study.baseline,
        target=target,
        headline=headline(study, rows, metric),
        rows=rows,
        planner=planner,
        sensitivity={arm: s for arm, s in found.items() if s},
        problems=problems,
    )


def check_baseline(study: Study) -> None:
    """Errors: ReportError when it is not known which arm the others are compared with."""
    names = ", ".join(dict.fromkeys(map(plain, study.arms)))
    if study.baseline is None:
        if len(study.arms) > 1:
            raise ReportError(f"which arm is the baseline? give --baseline ARM, one of: {names}")
    elif study.baseline not in {*study.arms, *map(plain, study.arms)}:
        raise ReportError(f"baseline {study.baseline!r} is no arm; give one of: {names}")


def baseline_of(study: Study, arm: str) -> str | None:
    """The arm that `arm` is compared with: the baseline, of the same length."""
    if study.baseline is None or study.baseline in study.arms:
        return study.baseline
    _, at, length = arm.rpartition(" @ ")
    name = f"{study.baseline}{at}{length}"
    return name if name in study.arms else None


def values_of(study: Study, arm: str, metric: str, censor: bool) -> dict[Pair, float]:
    """The metric of each run that has ended; +inf of diverged ones, or without them."""
    found: dict[Pair, float] = {}
    for run in study.of(arm):
        value = run.summary.get(metric)
        if run.diverged:
            if not censor:
                found[run.pair] = math.inf
        elif run.status == "finished" and value is not None and math.isfinite(value):
            found[run.pair] = float(value)
    return found


def finite_runs(study: Study, arm: str) -> list[Run]:
    """Runs whose curves count: finished, not diverged, with a final val loss."""
    return [
        run
        for run in study.of(arm)
        if run.status == "finished" and not run.diverged and final(run) is not None
    ]


def final(run: Run) -> float | None:
    """Final val loss, where it is a number."""
    value = run.summary.get("final_val_loss")
    return None if value is None or not math.isfinite(value) else float(value)


def default_target(study: Study, base: str | None) -> float | None:
    """The baseline's mean final val loss."""
    losses = [final(run) for run in finite_runs(study, base)] if base else []
    return float(np.mean(losses)) if losses else None  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- comparisons


def compare(study: Study, arm: str, values: Mapping[str, dict[Pair, float]]) -> Comparison | None:
    """`arm` against its baseline, p not yet adjusted; None for the baseline itself."""
    base = baseline_of(study, arm)
    if base == arm or study.baseline is None:
        return None
    if base is None:
        why = f"refused: {study.baseline} was not trained for the same number of updates"
        return Comparison(study.baseline, "refused", why)
    if reason := refusal(study, arm, base):
        return Comparison(base, "refused", f"refused: {reason}", notes=cautions(study, arm, base))
    mine, theirs = values[arm], values[base]
    notes = cautions(study, arm, base)
    if said := no_numbers(mine, theirs, base):
        call: Call = "diverged" if said.startswith("diverged") else "no verdict"
        both = mine.keys() & theirs.keys()
        gaps = {p: mine[p] - theirs[p] for p in sorted(both) if math.isfinite(mine[p])}
        gaps = {p: gap for p, gap in gaps.items() if math.isfinite(gap)}
        return Comparison(base, call, said, differences=gaps, notes=notes)
    return tested(base, mine, theirs, notes)


def no_numbers(mine: dict[Pair, float], theirs: dict[Pair, float], base: str) -> str | None:
    """Why there is nothing to test, in words."""
    if any(map(math.isinf, theirs.values())):
        count = sum(map(math.isinf, theirs.values()))
        return f"no verdict: {count} of {len(theirs)} runs of the baseline {base} diverged"
    if any(map(math.isinf, mine.values())):
        count = sum(map(math.isinf, mine.values()))
        return f"diverged: {count} of {len(mine)} runs, so its loss counts as infinite"
    if not mine or not theirs:
        return f"no verdict: no finished run of {base if mine else 'this arm'}"
    if len(mine) == 1 or len(theirs) == 1:
        return "no verdict: one seed cannot be told from noise"
    return None


def tested(
    base: str, mine: dict[Pair, float], theirs: dict[Pair, float], notes: tuple[str, ...]
) -> Comparison:
    """Paired t where every run has its pair, else Welch; BCa beside it."""
    gaps = {pair: mine[pair] - theirs[pair] for pair in sorted(mine.keys() & theirs.keys())}
    paired = mine.keys() == theirs.keys()
    sides = [list(mine.values()), list(theirs.values())]
    test = paired_t(list(gaps.values())) if paired else welch_t(*sides)
    assert test is not None
    boot = bca([list(gaps.values())] if paired else sides)
    if paired and all(gap == 0 for gap in gaps.values()):
        notes = (*notes, "all pairs are equal to the last bit: the same computation")
    if not paired:
        notes = (*notes, f"{len(mine)} and {len(theirs)} runs, {len(gaps)} pairs: compared "
                         "unpaired")  # fmt: skip
    return Comparison(
        base, "no evidence", "no evidence", "paired t" if paired else "Welch", gaps,
        test.difference, test.low, test.high, boot and boot.low, boot and boot.high, test.p,
        notes=notes,
    )  # fmt: skip


def adjusted(comparisons: dict[str, Comparison]) -> dict[str, Comparison]:
    """Holm over the arms that were tested, and the verdict that follows."""
    tests = {arm: c.p for arm, c in comparisons.items() if c.p is not None}
    for arm, p in zip(tests, holm(list(tests.values())), strict=True):
        old = comparisons[arm]
        call: Call = "no evidence"
        if p < ALPHA and old.difference:
            call = "better" if old.difference < 0 else "worse"
        comparisons[arm] = replace(old, p_holm=p, call=call, words=call)
    return comparisons


def refusal(study: Study, arm: str, base: str) -> str | None:
    """Why two arms must not be compared, in words; None when they may."""
    mine, theirs = study.of(arm), study.of(base)
    return (
        twins(mine)
        or twins(theirs)
        or unequal_starts(study, mine, theirs)
        or carried_over(study, [*mine, *theirs])
        or unequal_tokens(study, mine, theirs)
    )


def twins(runs: Sequence[Run]) -> str | None:
    """Two runs of one arm that are one: a seed that had no effect."""
    seen: dict[tuple[str, str], Run] = {}
    for run in runs:
        if {"weights", "batches"} <= run.hashes.keys():
            first = seen.setdefault((run.hashes["weights"], run.hashes["batches"]), run)
            if first is not run:
                return (
                    f"{first.arm}: seeds {first.seed} and {run.seed} have the same initial weights "
                    "and the same batches, so they are one run twice"
                )
    return None


def unequal_starts(study: Study, mine: Sequence[Run], theirs: Sequence[Run]) -> str | None:
    """Runs of the same seeds that did not start alike: hashes, else the loss at step 0."""
    other = {run.pair: run for run in theirs}
    for run in mine:
        twin = other.get(run.pair)
        if twin is None:
            continue
        same_model = not (differing(run, twin, "model.") & declared(study, run, twin))
        same_batches = not (differing(run, twin, "train.batch_tokens", "model.block_size", "data.")
                            & declared(study, run, twin))  # fmt: skip
        for name, checked in (("weights", same_model), ("batches", same_batches)):
            a, b = run.hashes.get(name), twin.hashes.get(name)
            if checked and a and b and a != b:
                what = "initial weights" if name == "weights" else "first batches"
                return (
                    f"{what} differ for seed {run.seed} ({twin.arm} {b[:8]}, {run.arm} {a[:8]})"
                    f"{inherited(study, run) or inherited(study, twin) or ''}"
                )
        mine_at = run.summary.get("initial_val_loss")
        twin_at = twin.summary.get("initial_val_loss")
        if not same_model or mine_at is None or twin_at is None:
            continue
        if abs(mine_at - twin_at) > START_TOLERANCE:
            return (
                f"val loss before the first update differs for seed {run.seed} ({twin.arm} "
                f"{twin_at:.4f}, {run.arm} {mine_at:.4f}){inherited(study, run) or ''}"
            )
    return None


def carried_over(study: Study, runs: Sequence[Run]) -> str | None:
    """A run that begins where another one ended."""
    return next((f"{run.name}{said}" for run in runs if (said := inherited(study, run))), None)


def inherited(study: Study, run: Run) -> str | None:
    """The run whose final val loss this one begins with, to nine digits."""
    start = run.summary.get("initial_val_loss")
    if start is None:
        return None
    for other in study.runs:
        end = other.summary.get("final_val_loss")
        same = end is not None and math.isclose(start, end, rel_tol=1e-9)
        learned = other.summary.get("initial_val_loss") != end
        if same and learned and other is not run:
            return (
                f": it begins at val loss {start:.6g}, where {other.arm} (seed {other.seed}) ended"
            )
    return None


def unequal_tokens(study: Study, mine: Sequence[Run], theirs: Sequence[Run]) -> str | None:
    """Arms of different lengths, unless the contest file says so."""
    a, b = ({budget(run) for run in runs if budget(run)} for runs in (mine, theirs))
    if len(a) == 1 and len(b) == 1 and a != b:
        keys = {"train.total_steps", "train.batch_tokens"}
        if not keys & declared(study, mine[0], theirs[0]):
            return f"unequal lengths: {a.pop():,} tokens against {b.pop():,} of the baseline"
    return None


def budget(run: Run) -> int | None:
    """Tokens the run was configured for."""
    steps, tokens = run.total_steps, value_at(run.config, "train.batch_tokens")
    return steps * tokens if steps and tokens else None


def declared(study: Study, *runs: Run) -> set[str]:
    """Dotted keys that the contest file sets for these runs' arms."""
    return {key for run in runs for key in study.declared.get(plain(run.arm), {})}


def differing(a: Run, b: Run, *prefixes: str) -> set[str]:
    """Dotted keys below `prefixes` in which two configurations differ."""
    x, y = flat(a.config), flat(b.config)
    keys = {key for key in {*x, *y} if key.startswith(prefixes or ("",))}
    return {key for key in keys if x.get(key) != y.get(key)}


def cautions(study: Study, arm: str, base: str) -> tuple[str, ...]:
    """What a reader of the comparison should know."""
    mine, theirs = study.of(arm), study.of(base)
    said = []
    if not all(run.hashes for run in [*mine, *theirs] if run.status != "missing"):
        said.append("hashes of weights and batches are not recorded for all runs: equal starts are "
                    "not proven")  # fmt: skip
    a, b = (next((r for r in runs if r.config), None) for runs in (mine, theirs))
    if a and b:
        keys = sorted(k for k in differing(a, b) if not k.startswith(FREE))
        for key in keys:
            word = "as the contest says" if key in declared(study, a, b) else "not in the contest"
            said.append(f"{key} is {value_at(a.config, key)} against {value_at(b.config, key)} "
                        f"({word})")  # fmt: skip
    waiting = [run for run in mine if not run.done]
    if waiting:
        said.append(f"{len(waiting)} of {len(mine)} runs are not finished")
    devices = {str(run.environment.get("device")) for run in [*mine, *theirs] if run.environment}
    if len(devices) > 1:
        said.append(f"different devices ({', '.join(sorted(devices))}): times do not compare")
    return tuple(said)


# ---------------------------------------------------------------------------------------- rows


def row(
    study: Study,
    arm: str,
    values: Mapping[str, dict[Pair, float]],
    comparison: Comparison | None,
    target: float | None,
) -> Row:
    """One arm's numbers."""
    runs, mine = study.of(arm), values[arm]
    numbers = list(mine.values())
    finite = bool(numbers) and all(map(math.isfinite, numbers))
    interval = t_interval(numbers) if finite else None
    base = baseline_of(study, arm)
    mean = (float(np.mean(numbers)) if finite else math.inf) if numbers else None
    compared = comparison is not None and comparison.call != "refused" and base is not None
    return Row(
        arm=arm,
        is_baseline=arm == base,
        planned=len(runs),
        statuses=dict(Counter(run.status for run in runs)),
        values=mine,
        n=len(numbers),
        mean=mean,
        std=float(np.std(numbers, ddof=1)) if finite and len(numbers) > 1 else None,
        low=interval and interval.low,
        high=interval and interval.high,
        diverged=sum(run.diverged for run in runs),
        costs=spreads(runs, COSTS),
        scores=spreads(runs, SCORES),
        to_target=targets(runs, target),
        speedups=speedups(study, arm, base) if compared and base else {},
        comparison=comparison,
        tuned=tuned(study, arm),
        mean_lr_factor=middle(runs, "mean_lr_factor"),
        last_lr_factor=middle(runs, "last_lr_factor"),
    )


def spread(numbers: Sequence[float]) -> Spread | None:
    """Median and extremes; infinities count."""
    if not numbers:
        return None
    x = sorted(numbers)
    with np.errstate(invalid="ignore"):
        centre = float(np.median(x)) if math.isfinite(x[len(x) // 2]) else x[len(x) // 2]
    return Spread(centre, x[0], x[-1])


def spreads(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Spread]:
    """Spread of each number over the runs that have it."""
    found = {}
    for name in names:
        numbers = [float(v) for run in runs if (v := run.summary.get(name)) is not None]
        if (s := spread([x for x in numbers if math.isfinite(x)])) is not None:
            found[name] = s
    return found


def middle(runs: Sequence[Run], name: str) -> float | None:
    """Median over the runs that have the number."""
    s = spreads(runs, [name]).get(name)
    return s.median if s else None


def targets(runs: Sequence[Run], target: float | None) -> dict[str, Spread]:
    """Costs of the target over the runs that have ended; a miss is infinite."""
    ended = [run for run in runs if run.done and len(run.val["step"])]
    if target is None or not ended:
        return {}
    each = [to_target(run, target) for run in ended]
    return {name: s for name in each[0] if (s := spread([e[name] for e in each]))}


def to_target(run: Run, target: float) -> dict[str, float]:
    """record.metrics.to_target, on columns."""
    names = ("steps_to_target", "seconds_to_target", "tokens_to_target")
    reached = run.val.get("val/loss", np.array([])) <= target
    if not reached.any():
        return dict.fromkeys(names, math.inf)
    step = run.val["step"][int(np.argmax(reached))]
    before = int(np.searchsorted(run.train["step"], step))  # updates before that evaluation
    last = before - 1
    seconds, tokens = (
        float(run.train[name][last]) if last >= 0 and name in run.train else 0.0
        for name in ("time/train_seconds", "tokens")
    )
    return dict(zip(names, (int(step), seconds, tokens), strict=True))


def tuned(study: Study, arm: str) -> Tuned | None:
    """The arm's entry in the ledger."""
    entry = ((study.tuning or {}).get("arms") or {}).get(plain(arm))
    if not isinstance(entry, Mapping):
        return None
    return Tuned(
        setting=dict(entry.get("best") or {}),
        trials=len(entry.get("trials") or []),
        edges=tuple(map(str, entry.get("edges") or [])),
        best_loss=entry.get("best_loss"),
        default_loss=entry.get("default_loss"),
        gap=entry.get("gap"),
    )


# ------------------------------------------------------------------------------------ speed-ups


def flops_per_token(run: Run) -> float | None:
    """Forward and backward: 6 N + 12 layers x width x context; N without position embeddings."""
    parameters, model = run.summary.get("parameters"), run.config.get("model") or {}
    if not parameters or not {"n_layer", "n_embd", "block_size"} <= model.keys():
        return None
    n = parameters - model["block_size"] * model["n_embd"]
    return float(6 * n + 12 * model["n_layer"] * model["n_embd"] * model["block_size"])


def cost_at(run: Run, axis: str, steps: Floats) -> Floats | None:
    """What `run` had spent before the evaluations at `steps`; None where it is not recorded."""
    if axis == "steps":
        return steps
    name = "time/train_seconds" if axis == "seconds" else "tokens"
    if name not in run.train:
        return None
    known = np.isfinite(run.train[name])
    after = np.concatenate([[0.0], run.train["step"][known] + 1])
    spent = np.interp(steps, after, np.concatenate([[0.0], run.train[name][known]]))
    if axis != "flops":
        return spent
    each = flops_per_token(run)
    return None if each is None else spent * each


def crossing(costs: Floats, losses: Floats, target: Floats) -> Floats:
    """Cost at which each curve first falls to its target, between evaluations on a straight line.

    costs, losses: (curves, evaluations); target: (curves,). Infinite where it never does.
    """
    below = losses <= target[:, None]
    k = np.argmax(below, axis=1)
    rows = np.arange(len(k))
    before = np.maximum(k - 1, 0)
    drop = losses[rows, before] - losses[rows, k]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(drop > 0, (losses[rows, before] - target) / drop, 1.0)
    at = costs[rows, before] + part * (costs[rows, k] - costs[rows, before])
    at = np.where(k == 0, costs[rows, 0], at)
    return np.where(below.any(axis=1), at, np.inf)


def speedups(study: Study, arm: str, base: str) -> dict[str, Speedup]:
    """On each axis: baseline's cost of its own final loss over the arm's cost of that loss.

    Curves are means over seeds; the interval is the percentile bootstrap over seeds, drawn
    together for both arms when the runs are pairs.
    """
    mine, theirs = finite_runs(study, arm), finite_runs(study, base)
    if not mine or not theirs:
        return {}
    if any(run.diverged for run in study.of(arm)):
        said = Speedup(0.0, None, None, "not reached: a run diverged")
        return dict.fromkeys(AXES, said)
    paired = [run.pair for run in mine] == [run.pair for run in theirs]
    weights = resampled((len(mine), len(theirs)), np.random.default_rng(0), paired)
    whole = [np.full((1, len(runs)), 1 / len(runs)) for runs in (mine, theirs)]
    found = {}
    for axis in AXES:
        curves = [curves_of(runs, axis) for runs in (mine, theirs)]
        if curves[0] is None or curves[1] is None:
            continue
        ratio = float(ratios(curves[0], curves[1], whole)[0])
        low = high = None
        if min(len(mine), len(theirs)) > 1:
            draws = ratios(curves[0], curves[1], weights)
            low, high = map(float, np.quantile(draws, [ALPHA / 2, 1 - ALPHA / 2]))
        found[axis] = Speedup(ratio, low, high, speedup_words(ratio))
    return found


def speedup_words(ratio: float) -> str:
    """ "1.20 x" or "not reached"."""
    if math.isnan(ratio):
        return "not defined"
    return f"{ratio:.2f} x" if ratio > 0 else "not reached"


def curves_of(runs: Sequence[Run], axis: str) -> tuple[Floats, Floats] | None:
    """(costs, losses), each (runs, evaluations), at the evaluations that all runs have."""
    steps = runs[0].val["step"]
    for run in runs[1:]:
        steps = np.intersect1d(steps, run.val["step"])
    costs = [cost_at(run, axis, steps) for run in runs]
    if not len(steps) or any(c is None for c in costs):
        return None
    losses = [run.val["val/loss"][np.isin(run.val["step"], steps)] for run in runs]
    return np.array(costs), np.array(losses)


def ratios(
    mine: tuple[Floats, Floats], theirs: tuple[Floats, Floats], weights: Sequence[Floats]
) -> Floats:
    """Baseline's cost over the arm's for each row of seed weights; 0 where the arm misses."""
    my_costs, my_losses = (weights[0] @ x for x in mine)
    base_costs, base_losses = (weights[1] @ x for x in theirs)
    target = base_losses[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return crossing(base_costs, base_losses, target) / crossing(my_costs, my_losses, target)


# ---------------------------------------------------------------------- planner and sensitivity


def plan(
    values: Mapping[str, dict[Pair, float]],
    comparisons: Mapping[str, Comparison],
    wanted: Sequence[float],
) -> Planner:
    """From the noise of the runs at hand: what n seeds can show, and n for a wanted difference."""
    groups = [[x for x in v.values() if math.isfinite(x)] for v in values.values()]
    sigma = pooled_std(groups)
    gaps = [list(c.differences.values()) for c in comparisons.values() if c.method == "paired t"]
    between = pooled_std(gaps)
    scale = sigma or between
    sizes = wanted or ([nice(scale * factor) for factor in (0.5, 1, 2, 4)] if scale else [])
    return Planner(
        sigma=sigma,
        sigma_paired=between,
        detectable={n: (show(sigma, n, False), show(between, n, True)) for n in PLANNED_SEEDS},
        needed={d: (count(sigma, d, False), count(between, d, True)) for d in sizes},
    )


def nice(x: float) -> float:
    """Rounded to two digits."""
    return float(f"{x:.1e}")


def show(sigma: float | None, n: int, paired: bool) -> float | None:
    """`detectable` where there is a sigma."""
    return None if sigma is None else detectable(sigma, n, paired=paired)


def count(sigma: float | None, difference: float, paired: bool) -> int | None:
    """`needed` where there is a sigma."""
    return None if sigma is None else needed(sigma, difference, paired=paired)


def sensitivity(study: Study, arm: str) -> Sensitivity | None:
    """Learning-rate sensitivity of an arm from its tuning runs (Wortsman et al. 2023, eq. in 2.2).

    At each rate the best of the other settings, each a mean over tuning seeds; a diverged run
    counts as the loss before the first update. None below two rates.
    """
    runs = [run for run in study.runs if run.role == "tuning" and run.arm == arm and run.done]
    runs = [run for run in runs if run.summary.get("initial_val_loss") is not None]
    if not runs:
        return None
    initial = float(np.mean([run.summary["initial_val_loss"] for run in runs]))
    settings: dict[tuple[float, str], list[float]] = {}
    for run in runs:
        keys = {
            k: v for k, v in flat(run.config).items() if k.startswith(("optimizer", "schedule"))
        }
        rate = keys.pop("optimizer.lr", None)
        loss = initial if run.diverged else final(run)
        if rate is not None and loss is not None:
            settings.setdefault((float(rate), repr(sorted(keys.items()))), []).append(loss)
    losses: dict[float, float] = {}
    for (rate, _), each in sorted(settings.items()):
        losses[rate] = min(losses.get(rate, math.inf), float(np.mean(each)))
    if len(losses) < 2:
        return None
    capped = np.minimum(list(losses.values()), initial)
    steps = np.diff(np.log(list(losses)))
    even = bool(np.allclose(steps, steps[0], rtol=0.15))
    note = "" if even else "the rates are not evenly spaced in log: a plain mean over them"
    return Sensitivity(losses, initial, float(capped.mean() - capped.min()), note)


# --------------------------------------------------------------------------- problems and headline


def problems_of(study: Study, metric: str, censored: bool) -> list[str]:
    """Everything that is wrong with the runs, one line each."""
    said = []
    for run in study.runs:
        said += [f"{run.arm}, seed {run.seed} ({run.name}): {problem}" for problem in run.problems]
        if run.role == "report" and run.diverged:
            why = run.summary.get("diverged_reason") or "non-finite"
            counts = "left out of means, as asked" if censored else "its loss counts as infinite"
            said.append(f"{run.arm}, seed {run.seed} ({run.name}): diverged ({why}); {counts}")
        elif run.role == "report" and run.status == "finished" and run.summary.get(metric) is None:
            said.append(f"{run.arm}, seed {run.seed} ({run.name}): no {metric}; not in the means")
    said += [f"{arm}: no reporting run" for arm in study.arms if not study.of(arm)]
    for arm, entry in ((study.tuning or {}).get("arms") or {}).items():
        if isinstance(entry, Mapping) and entry.get("edges"):
            edges = ", ".join(map(str, entry["edges"]))
            said.append(f"{arm}: its best setting lies at the edge of the grid in {edges}; a wider "
                        "grid may be better")  # fmt: skip
    return said


def headline(study: Study, rows: Sequence[Row], metric: str) -> str:
    """One sentence for the reader in a hurry."""
    name = metric.replace("_", " ")
    if study.baseline is None or len(rows) < 2:
        only = rows[0] if rows else None
        tail = f": {name} {only.mean:.4f}, n = {only.n}" if only and only.mean is not None else ""
        return f"No verdict: one arm, nothing to compare it with{tail}."
    groups: dict[str, list[str]] = {}
    for r in rows:
        if c := r.comparison:
            size = f" ({c.difference:+.4f})".replace("-", "−") if c.difference is not None else ""
            groups.setdefault(c.call, []).append(r.arm + size * (c.call in ("better", "worse")))
    endings = {
        "better": ("is better", "are better"),
        "worse": ("is worse", "are worse"),
        "no evidence": ("shows no evidence of a difference", "show no evidence of a difference"),
        "diverged": ("diverged", "diverged"),
        "no verdict": ("has no verdict yet", "have no verdict yet"),
        "refused": ("cannot be compared", "cannot be compared"),
    }
    parts = [
        f"{listed(groups[call])} {ending[len(groups[call]) > 1]}"
        for call, ending in endings.items()
        if call in groups
    ]
    return f"Against {study.baseline}, by {name}: {'; '.join(parts)}."


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"; long lists are cut and counted."""
    shown = list(names[:6]) + ([f"{len(names) - 6} more"] if len(names) > 6 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
