"""What a report says of tuning: the settings, how sure their choice is, and every trial."""

from __future__ import annotations

from record.contest import Ledger, LedgerTrial, TunedArm
from report.formats import NONE, loss, setting
from report.judgement import Judgement
from report.replay import Replay
from report.sections import Cell, Line, Section, Table
from report.statistics import RESAMPLES
from report.study import Study

TEXT = (
    "Tuning has seeds of its own, never those of the leaderboard. Gap: loss of the default setting "
    "minus loss of the tuned one, both with the tuning seeds. Sensitivity (Wortsman et al. 2023): "
    "mean over the rates of min(loss, loss before training), minus the best loss."
)


def tuning(study: Study, judgement: Judgement) -> Section | None:
    """The chosen settings, and the sensitivity to the learning rate."""
    tuned = [_tuned_row(row.arm, row.tuned) for row in judgement.rows if row.tuned]
    columns = ("arm", "setting", "trials", "at the edge", "tuned", "default", "gap")
    rates = [
        [arm, loss(s.score), loss(min(s.losses.values())), str(len(s.losses)), s.note or NONE]
        for arm, s in judgement.sensitivity.items()
    ]
    rate_columns = ("arm", "sensitivity to lr", "best loss", "rates", "notes")
    tables = [
        Table(columns, tuned, "Tuned settings, and what tuning gained"),
        Table(rate_columns, rates, "Sensitivity to the learning rate"),
    ]
    filled = [table for table in tables if table.rows]
    text = f"{_how(study.tuning)} {TEXT}".strip()
    return Section("tuning", "Tuning", text, filled) if filled else None


def choice(study: Study, judgement: Judgement) -> Section | None:
    """How sure the choice of settings is: its replay."""
    again = judgement.replay
    if again is None:
        return None
    rows = [
        _replay_row(row.arm, row.tuned, again, study.without_length(row.arm))
        for row in judgement.rows
        if row.tuned and study.without_length(row.arm) in again.other
    ]
    text = (
        f"Another chosen: share of {RESAMPLES:,} draws in which another setting wins, when the "
        f"loss of each trial is drawn anew with the noise of tuning ({again.std:.4f} nats between "
        f"two settings with one seed, from {again.source}). Verdict changes: share in which the "
        "verdict of the arm is another one, if the settings so chosen were run instead; their "
        "losses are those of the reporting runs, shifted by the difference between the trials."
    )
    columns = ("arm", "runner-up", "behind by", "another chosen", "verdict changes")
    table = Table(columns, rows, "The choice of settings made again, with the noise of tuning")
    return Section("choice", "How sure is the choice of settings?", text, [table]) if rows else None


def _how(ledger: Ledger | None) -> str:
    """The method, and what came after the grid or the search."""
    if ledger is None:
        return ""
    text = f"Method: {ledger.method}, {ledger.trials_per_arm} trials per arm. "
    if ledger.extend:
        rounds = f"{ledger.rounds} of at most {ledger.extend}"
        text += f"Rounds of one further trial per arm, while a best lay at an edge: {rounds}. "
    tied = sum(trial.tied for arm in ledger.arms.values() for trial in arm.trials)
    if ledger.tie_seeds:
        text += f"Trials that were close and are run with the tie seeds too: {tied}. "
    return text.strip()


def _tuned_row(arm: str, tuned: TunedArm) -> Line:
    edges = Cell(", ".join(tuned.edges), "worse") if tuned.edges else "no"
    return [
        Cell(arm, "arm"),
        setting(tuned.best),
        str(sum(trial.candidate for trial in tuned.trials)),
        edges,
        loss(tuned.best_loss),
        loss(tuned.default_loss),
        loss(tuned.gap),
    ]


def _replay_row(arm: str, tuned: TunedArm, again: Replay, own: str) -> Line:
    changes = again.verdict.get(arm)
    return [
        Cell(arm, "arm"),
        setting(tuned.runner_up),
        loss(tuned.runner_up_gap),
        f"{100 * again.other[own]:.0f} %",
        NONE if changes is None else f"{100 * changes:.0f} %",
    ]


def ledger(study: Study) -> Section | None:
    """Every trial of every arm."""
    if study.tuning is None:
        return None
    rows = [
        _trial_row(arm, tuned, trial)
        for arm, tuned in study.tuning.arms.items()
        for trial in tuned.trials
    ]
    columns = ("arm", "setting", "round", "seeds", "mean loss", "status", "what became of it")
    text = (
        "Round 0 is the grid or the search. A trial that was close to the best has more seeds, and "
        "its mean is over all of them."
    )
    title = f"Ledger of tuning ({len(rows)} trials)"
    return Section("ledger", title, text, [Table(columns, rows, "Every trial")], folded=True)


def _trial_row(arm: str, tuned: TunedArm, trial: LedgerTrial) -> Line:
    said = [
        "chosen" if trial.candidate and trial.setting == tuned.best else "",
        "runner-up" if trial.candidate and trial.setting == tuned.runner_up else "",
        "run with more seeds" if trial.tied else "",
        "untuned" if trial.default else "",
        "" if trial.candidate else "no candidate",
    ]
    return [
        Cell(arm, "arm"),
        setting(trial.setting),
        str(trial.round),
        str(len(trial.runs)),
        loss(trial.loss),
        trial.status,
        ", ".join(filter(None, said)) or NONE,
    ]
