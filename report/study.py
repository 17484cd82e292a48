"""A study: the runs that are judged together, and what their contest says of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from record.contest import SMALLEST, Ledger, Role
from report.run import Run, Status


@dataclass(frozen=True)
class Study:
    """What is to be judged.

    arms: in the contest's order; an arm of several lengths is one arm for each.
    baseline: None if nobody has named it. An arm of length L is compared with the baseline of
    length L.
    target: val loss in nats whose cost is measured; None takes the baseline's.
    tuning: the ledger, tuning.json.
    declared: dotted keys that the contest file sets or tunes for an arm, by arm.
    against: the arm that an arm is compared with, by arm, where it is not the baseline.
    step_ms: step times measured alone, the mean of each round, by arm without a length.
    smallest: nats; arms that differ by less are equivalent. 0: none are.
    random_text: verdicts are for other held-out texts too, not only for the one at hand.
    pending: planned reporting runs that wait for the tuning of their arm.
    history: what was planned when, and what was changed, one line each.
    lengths: of arms that `by_length` made: the arm that it belongs to, and its updates, if known.
    """

    name: str
    runs: list[Run]
    baseline: str | None
    target: float | None
    arms: list[str]
    tuning: Ledger | None = None
    problems: list[str] = field(default_factory=list)
    declared: dict[str, tuple[str, ...]] = field(default_factory=dict)
    against: dict[str, str] = field(default_factory=dict)
    step_ms: dict[str, tuple[float, ...]] = field(default_factory=dict)
    smallest: float = SMALLEST
    random_text: bool = False
    pending: int = 0
    history: list[str] = field(default_factory=list)
    lengths: dict[str, tuple[str, int | None]] = field(default_factory=dict)

    @property
    def provisional(self) -> str:
        """Why the verdicts may still change; "" when every planned reporting run has ended."""
        runs = [run for run in self.runs if run.role == "report"]
        missing = self.pending + sum(not run.done for run in runs)
        failed = sum(run.status == "failed" for run in runs)
        if not missing:
            return ""
        more = f", {failed} of them failed" if failed else ""
        planned = "planned " if self.pending or any(run.planned for run in runs) else ""
        return f"{missing} of {len(runs) + self.pending} {planned}runs have not ended{more}"

    def of(self, arm: str, role: Role = "report") -> list[Run]:
        """The runs of one arm in one role, by their seeds."""
        found = [run for run in self.runs if run.role == role and run.arm == arm]
        return sorted(found, key=lambda run: (*run.pair, run.name))

    def finished(self, arm: str) -> list[Run]:
        """Runs of `arm` whose curves count: finished, not diverged, with a final val loss."""
        return [
            run
            for run in self.of(arm)
            if run.status == "finished" and not run.diverged and run.final_loss is not None
        ]

    def baseline_of(self, arm: str) -> str | None:
        """The arm that `arm` is compared with, of its length: its own baseline, or that of all."""
        own, steps = self.lengths.get(arm, (arm, None))
        base = self.against.get(own, self.baseline)
        if base is None or base in self.arms:
            return base
        same = (name for name in self.arms if steps and self.lengths.get(name) == (base, steps))
        return next(same, None)

    def without_length(self, arm: str) -> str:
        """The name that the contest has for an arm of one of its lengths."""
        return self.lengths.get(arm, (arm, None))[0]


# ----------------------------------------------------------------------------------------- merging


def merge(studies: Sequence[Study]) -> Study:
    """Several studies as one; an arm that two contests share is named after its contest too."""
    uses = Counter(arm for study in studies for arm in set(study.arms))
    clash = {arm for arm, count in uses.items() if count > 1}
    if len({study.name for study in studies}) < len(studies):
        clash = set()  # parts of one contest
    named = [_qualified(study, clash) for study in studies]
    baselines = {study.baseline for study in named if study.baseline}
    targets = {study.target for study in named if study.target is not None}
    problems = [problem for study in named for problem in study.problems]
    if clash:
        arms = ", ".join(sorted(clash))
        problems.append(f"several contests have an arm {arms}; each is named after its contest")
    return Study(
        name=" + ".join(dict.fromkeys(study.name for study in named)),
        runs=[run for study in named for run in study.runs],
        baseline=baselines.pop() if len(baselines) == 1 else None,
        target=targets.pop() if len(targets) == 1 else None,
        arms=list(dict.fromkeys(arm for study in named for arm in study.arms)),
        tuning=_merged([study.tuning for study in named if study.tuning]),
        problems=problems,
        declared={arm: keys for study in named for arm, keys in study.declared.items()},
        against={arm: other for study in named for arm, other in study.against.items()},
        step_ms={arm: times for study in named for arm, times in study.step_ms.items()},
        smallest=min(study.smallest for study in named),
        random_text=any(study.random_text for study in named),
        pending=sum(study.pending for study in named),
        history=[f"{study.name}: {line}" for study in named for line in study.history],
    )


def _merged(ledgers: Sequence[Ledger]) -> Ledger | None:
    """One ledger with the arms of all."""
    if not ledgers:
        return None
    arms = {arm: entry for ledger in ledgers for arm, entry in ledger.arms.items()}
    return ledgers[0].model_copy(update={"arms": arms})


def _qualified(study: Study, clash: set[str]) -> Study:
    """`study` with the arms in `clash` named "<contest>/<arm>"."""
    if not clash:
        return study

    def new(arm: str) -> str:
        return f"{study.name}/{arm}" if arm in clash else arm

    ledger = study.tuning
    if ledger:
        arms = {new(arm): entry for arm, entry in ledger.arms.items()}
        ledger = ledger.model_copy(update={"arms": arms})
    return replace(
        study,
        runs=[replace(run, arm=new(run.arm)) for run in study.runs],
        arms=[new(arm) for arm in study.arms],
        baseline=new(study.baseline) if study.baseline else None,
        tuning=ledger,
        declared={new(arm): keys for arm, keys in study.declared.items()},
        against={new(arm): new(other) for arm, other in study.against.items()},
        step_ms={new(arm): times for arm, times in study.step_ms.items()},
    )


def without_copies(study: Study) -> Study:
    """Each folder once; of two runs with the same arm and seeds, the one whose status is better."""
    order: dict[Status, int] = {"finished": 0, "diverged": 1, "running": 2, "stopped": 3}
    runs: dict[Any, Run] = {}
    problems = list(study.problems)
    for run in sorted(study.runs, key=lambda run: order.get(run.status, 4)):
        steps = run.total_steps if run.role == "report" else run.name
        first = runs.setdefault((run.arm, run.role, run.pair, steps), run)
        if os.path.realpath(first.source) != os.path.realpath(run.source):
            problems.append(
                f"{run.source} has the arm, seeds and length of {first.source}, which counts; it "
                "is left out"
            )
    kept = {id(run) for run in runs.values()}
    return replace(study, runs=[r for r in study.runs if id(r) in kept], problems=problems)


# ----------------------------------------------------------------------------------------- lengths


def by_length(study: Study) -> Study:
    """If any arm was trained at several lengths, every arm becomes one arm for each length."""
    found = {*study.arms}
    arms = [*study.arms, *sorted({r.arm for r in study.runs if r.role == "report"} - found)]
    lengths = {arm: _lengths(study, arm) for arm in arms}
    split = sorted(arm for arm in arms if sum(n is not None for n in lengths[arm]) > 1)
    if not split:
        return replace(study, arms=arms)
    own = {_at_length(arm, n): (arm, n) for arm in arms for n in lengths[arm] or [None]}
    notice = f"trained at several lengths: {', '.join(split)}; each length is an arm of its own"
    return replace(
        study,
        runs=[_labelled(run) for run in study.runs],
        arms=list(own),
        lengths=own,
        problems=[*study.problems, notice],
    )


def _labelled(run: Run) -> Run:
    """A reporting run with its length in the name of its arm."""
    if run.role != "report":
        return run
    return replace(run, arm=_at_length(run.arm, run.total_steps), length=run.total_steps)


def _lengths(study: Study, arm: str) -> list[int | None]:
    """Updates of the arm's reporting runs, each length once, ascending; None where not known."""
    found = {run.total_steps or None for run in study.of(arm)}
    return sorted(found, key=lambda n: (n is None, n))


def _at_length(arm: str, steps: int | None) -> str:
    """The name of an arm at one of its lengths."""
    return f"{arm} @ {steps:,}" if steps else f"{arm} @ unknown length"
