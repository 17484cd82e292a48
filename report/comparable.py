"""May two arms be compared? Refusals, and cautions for the reader of a comparison.

A comparison is fair where two runs of the same seeds differ in nothing but what is compared. What
cannot be fair is refused; a difference that may matter is named. A difference that the contest file
declares for an arm is part of the contest, and refuses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from configs.loading import flat
from configs.schema import OUTSIDE
from report.run import Run, value_at
from report.study import Study

START_TOLERANCE = 0.02  # nats; the same weights on another device differ by less
# hash: (its name in messages, configuration keys that change it)
STARTS = {
    "weights": ("initial weights", ("model.", "init")),
    "batches": ("first batches", ("train.batch_tokens", "model.block_size", "data.")),
    "val": ("validation texts", ("eval.tokens", "model.block_size", "data.")),
    "test": ("test texts", ("eval.tokens", "model.block_size", "data.")),
    "data": ("shards of tokens", ("data.",)),
}
# Keys that arms may differ in without a caution: the subject of the comparison, and keys that do
# not change results.
FREE = ("optimizer.", "schedule.", "seed", "data_seed", *OUTSIDE)


def refusal(study: Study, arm: str, base: str) -> str | None:
    """Why `arm` must not be compared with `base`, in words; None if it may."""
    mine, theirs = study.of(arm), study.of(base)
    return (
        _one_run_twice(mine)
        or _one_run_twice(theirs)
        or _unequal_starts(study, mine, theirs)
        or _carried_over(study, [*mine, *theirs])
        or _unequal_lengths(study, mine, theirs)
        or _unequal_types(mine, theirs)
    )


def cautions(study: Study, arm: str, base: str) -> tuple[str, ...]:
    """What the reader of a comparison should know, a line each."""
    mine, theirs = study.of(arm), study.of(base)
    return (
        *_missing_hashes([*mine, *theirs]),
        *_other_settings(study, mine, theirs),
        *_unfinished(mine),
        *_other_devices([*mine, *theirs]),
    )


# ---------------------------------------------------------------------------------------- refusals


def _one_run_twice(runs: Sequence[Run]) -> str | None:
    """Two seeds of one arm that gave the same run: the seed had no effect."""
    seen: dict[tuple[str, str], Run] = {}
    for run in runs:
        if {"weights", "batches"} <= run.hashes.keys():
            first = seen.setdefault((run.hashes["weights"], run.hashes["batches"]), run)
            if first is not run:
                return (
                    f"{first.arm}: seeds {first.seed} and {run.seed} have the same initial weights "
                    "and the same batches, so they are the same run"
                )
    return None


def _unequal_starts(study: Study, mine: Sequence[Run], theirs: Sequence[Run]) -> str | None:
    """Runs of the same seeds that did not start alike: by hashes, and by the loss at step 0."""
    twins = {run.pair: run for run in theirs}
    for run in mine:
        twin = twins.get(run.pair)
        if twin and (reason := _other_hash(study, run, twin) or _other_loss(study, run, twin)):
            return reason
    return None


def _other_hash(study: Study, run: Run, twin: Run) -> str | None:
    """Different initial weights or first batches, unless the contest asks for them."""
    for name, (what, keys) in STARTS.items():
        a, b = run.hashes.get(name), twin.hashes.get(name)
        if a and b and a != b and not _declared_difference(study, run, twin, *keys):
            hashes = f"{twin.arm} {b[:8]}, {run.arm} {a[:8]}"
            why = _inherited(study, run) or _inherited(study, twin) or ""
            return f"{what} differ for seed {run.seed} ({hashes}){why}"
    return None


def _other_loss(study: Study, run: Run, twin: Run) -> str | None:
    """Different val losses before the first update, unless the contest asks for other models."""
    a, b = run.summary.get("initial_val_loss"), twin.summary.get("initial_val_loss")
    if a is None or b is None or abs(a - b) <= START_TOLERANCE:
        return None
    if _declared_difference(study, run, twin, "model."):
        return None
    losses = f"{twin.arm} {b:.4f}, {run.arm} {a:.4f}"
    why = _inherited(study, run) or ""
    return f"val loss before the first update differs for seed {run.seed} ({losses}){why}"


def _carried_over(study: Study, runs: Sequence[Run]) -> str | None:
    """A run that begins where another one ended, and was not asked to by its `init`."""
    found = ((run.name, _inherited(study, run)) for run in runs if not run.config.get("init"))
    return next((f"{name}{where}" for name, where in found if where), None)


def _inherited(study: Study, run: Run) -> str | None:
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


def _unequal_lengths(study: Study, mine: Sequence[Run], theirs: Sequence[Run]) -> str | None:
    """Arms trained on different numbers of tokens, unless the contest file says so."""
    a, b = ({tokens for run in runs if (tokens := _budget(run))} for runs in (mine, theirs))
    if len(a) != 1 or len(b) != 1 or a == b:
        return None
    if {"train.total_steps", "train.batch_tokens"} & _declared(study, mine[0], theirs[0]):
        return None
    return f"unequal lengths: {a.pop():,} tokens against {b.pop():,} of the baseline"


def _unequal_types(mine: Sequence[Run], theirs: Sequence[Run]) -> str | None:
    """Matrix products of different types: of one run, or of two arms whose settings are the same.

    `train.dtype = "auto"` means another type on another GPU.
    """
    for run in (*mine, *theirs):
        if len(types := run.hardware("dtype")) > 1:
            return f"{run.name} was trained in {' and '.join(types)}, on different hardware"
    a, b = (sorted({t for run in runs for t in run.hardware("dtype")}) for runs in (mine, theirs))
    if not a or not b or a == b or _differing(mine[0], theirs[0], "train.dtype"):
        return None
    return f"trained in {' and '.join(a)} against {' and '.join(b)} of the baseline"


def _budget(run: Run) -> int | None:
    """Tokens that the run was configured for."""
    steps, tokens = run.total_steps, value_at(run.config, "train.batch_tokens")
    return steps * tokens if steps and tokens else None


# ---------------------------------------------------------------------------------------- cautions


def _missing_hashes(runs: Sequence[Run]) -> list[str]:
    if all(run.hashes for run in runs if run.status != "missing"):
        return []
    return [
        "hashes of weights and batches are not recorded for all runs: equal starts are not proven"
    ]


def _other_settings(study: Study, mine: Sequence[Run], theirs: Sequence[Run]) -> list[str]:
    """Keys outside FREE in which the first configured runs differ."""
    a, b = (next((run for run in runs if run.config), None) for runs in (mine, theirs))
    if a is None or b is None:
        return []
    notes, declared = [], _declared(study, a, b)
    x, y = flat(a.config), flat(b.config)
    for key in sorted(key for key in _differing(a, b) if not key.startswith(FREE)):
        word = " (as the contest says)" if key in declared else " (not in the contest)"
        contest = a.contest or b.contest
        notes.append(f"{key} is {x.get(key)} against {y.get(key)}{word if contest else ''}")
    return notes


def _unfinished(mine: Sequence[Run]) -> list[str]:
    waiting = sum(not run.done for run in mine)
    return [f"not finished: {waiting} of {len(mine)} runs"] if waiting else []


def _other_devices(runs: Sequence[Run]) -> list[str]:
    devices = sorted({device for run in runs for device in run.hardware("device")})
    if len(devices) < 2:
        return []
    return [f"different devices ({', '.join(devices)}): times do not compare, rounding differs"]


# ---------------------------------------------------------------------------------- configurations


def _declared(study: Study, *runs: Run) -> set[str]:
    """Dotted keys that the contest file sets or tunes for these runs' arms."""
    return {key for run in runs for key in study.declared.get(study.without_length(run.arm), ())}


def _differing(a: Run, b: Run, *prefixes: str) -> set[str]:
    """Dotted keys below `prefixes` (none: all) in which two configurations differ."""
    x, y = flat(a.config), flat(b.config)
    keys = {key for key in {*x, *y} if key.startswith(prefixes or ("",))}
    return {key for key in keys if x.get(key) != y.get(key)}


def _declared_difference(study: Study, a: Run, b: Run, *prefixes: str) -> bool:
    """Whether two configurations differ below `prefixes`, and the contest file says so."""
    return bool(_differing(a, b, *prefixes) & _declared(study, a, b))
