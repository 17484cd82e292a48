"""The study as a W&B report: our tables as text, and panels that W&B draws from its own runs.

`python -m report RUNS... --wandb ENTITY/PROJECT` saves one. Its runs are those in W&B whose group
is the contest (the trainer sets group and job type), so the panels stay live while runs train; the
tables are text, and say when they were made.
"""

from datetime import UTC, datetime
from typing import Any

from record.contest import Role, group
from record.wandb_mirror import one_line
from report.judgement import Judgement
from report.run import ACCURACY, ReportError
from report.sections import escaped, markdown_section
from report.study import Study
from report.tables import sections
from report.wandb_runs import connect

STEPS, TOKENS, SECONDS = "Step", "tokens", "time/train_seconds"
AXES = {STEPS: "updates", TOKENS: "tokens", SECONDS: "seconds of training"}
LONGEST_TITLE = 128  # characters, W&B's limit
SHOWN_SECTIONS = (
    "answer",
    "leaderboard",
    "problems",
    "comparisons",
    "horizons",
    "speedups",
    "hellaswag",
    "planner",
)
# title, y, x axes; one row of panels each
CURVES = (
    ("Validation loss", "val/loss", (STEPS, TOKENS, SECONDS)),
    ("Train loss", "train/loss", (STEPS, TOKENS, SECONDS)),
    ("Learning rate", "train/lr", (STEPS,)),
    ("Gradient norm before clipping", "train/grad_norm", (STEPS,)),
    ("Seconds of training", "time/train_seconds", (STEPS,)),
    ("Stability score (never ranks)", "train/stability_score", (STEPS,)),
    ("Spikes, % of updates", "train/spike_score", (STEPS,)),
    ("Milliseconds per update", "time/step_ms", (STEPS,)),
)
INSIDE = (  # of runs with diagnose.every
    ("Local gain of hidden matrices", "inside/gain_hidden", (STEPS,)),
    ("Update over weight of hidden matrices", "inside/update_ratio_hidden", (STEPS,)),
    ("Cosine of update and minus gradient", "inside/cosine_hidden", (STEPS,)),
    ("Gradient noise scale, tokens", "inside/noise_scale", (STEPS,)),
)
LOGARITHMIC = (
    "train/grad_norm",
    "inside/gain_hidden",
    "inside/update_ratio_hidden",
    "inside/noise_scale",
)
BARS = {
    "final_val_loss": "Final validation loss",
    "step_ms_median": "Median step, ms",
    "train_seconds": "Seconds of training in all",
}
NOTE = """\
Lines are means over the seeds of an arm, bands from the lowest to the highest. W&B pairs values of
one step, and at the end of a run there is an evaluation but no update: against tokens and seconds
the last validation loss is missing here. `report.html` has it."""


def publish(study: Study, judgement: Judgement, entity: str, project: str) -> str:
    """Save the report of a study in a W&B project; returns its address.

    Raises:
        ReportError: no account, no such project, or no answer; one line.
    """
    connect()  # says what is wrong with the account; wandb-workspaces would ask on the terminal
    report = _build(study, judgement, entity, project)
    try:
        report.save()
        return str(report.url)
    except Exception as error:  # W&B's client raises half a dozen kinds, and changes them
        if "not found" in str(error):
            raise ReportError(
                f"W&B has no project {entity}/{project} that this account can write to; the panels "
                "draw its runs, so upload those first (`wandb sync RUN/wandb/*run-*`)"
            ) from error
        raise ReportError(
            f"the W&B report was not saved ({one_line(error)}); report.md and report.html are"
        ) from error


def _build(study: Study, judgement: Judgement, entity: str, project: str) -> Any:
    """The report as an object of wandb-workspaces, not saved; asks no server."""
    import wandb_workspaces.reports.v2 as wr

    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    blocks: list[Any] = [
        wr.MarkdownBlock(text=_findings(study, judgement)),
        wr.P(text=f"Made {made} by python -m report, whose report.md has more. Below is live."),
        wr.H2(text="Curves"),
        wr.P(text=" ".join(NOTE.split())),
        wr.PanelGrid(runsets=_run_sets(study, entity, project, "report"), panels=_curves(study)),
    ]
    if keys := _tuned_keys(study):
        runs = _run_sets(study, entity, project, "tuning")
        panels = [_sensitivity(key) for key in keys]
        blocks += [wr.H2(text="Tuning"), wr.PanelGrid(runsets=runs, panels=panels)]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{study.name}, {len(study.arms)} arms"[:LONGEST_TITLE],
        width="fluid",
        blocks=blocks,
        description=judgement.headline,
    )


def _findings(study: Study, judgement: Judgement) -> str:
    """Headline, leaderboard and what supports it, as in report.md."""
    shown = [s for s in sections(study, judgement, "") if s.id in SHOWN_SECTIONS]
    return "\n\n".join([f"**{escaped(judgement.headline)}**", *map(markdown_section, shown)])


def _run_sets(study: Study, entity: str, project: str, role: Role) -> list[Any]:
    """One for each contest: the runs of its group, grouped by arm (W&B's job type)."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    groups = [group(contest, role) for contest in sorted({r.contest or "" for r in study.runs})]
    return [
        wr.Runset(
            entity=entity,
            project=project,
            name=name or "runs without a group",
            filters=expr.And(expr.Metric("Group") == name),
            groupby=["JobType"] if role == "report" else [],
        )
        for name in groups
    ]


def _curves(study: Study) -> list[Any]:
    """The panels of report.html that W&B can draw, and numbers of the summary as bars."""
    import wandb_workspaces.reports.v2 as wr

    more = [row for row in INSIDE if any(row[1] in run.train for run in study.runs)]
    asked = any(ACCURACY in run.val for run in study.runs)
    more += [("HellaSwag, accuracy (acc_norm)", ACCURACY, (STEPS,))] if asked else []
    shown = [*CURVES, *more]
    plots = [_curve(title, y, x, len(axes)) for title, y, axes in shown for x in axes]
    bars = [
        wr.BarPlot(
            title=title,
            metrics=[wr.SummaryMetric(key)],
            groupby="JobType",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for key, title in BARS.items()
    ]
    return [*plots, *bars]


def _curve(title: str, y: str, x: str, axes: int) -> Any:
    """One panel of curves. axes: how many panels show the same y."""
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=title if axes == 1 else f"{title} against {AXES[x]}",
        x=x,
        y=[y],
        title_x=AXES[x],
        log_y=y in LOGARITHMIC,
        groupby="JobType",
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=1000,
    )


def _tuned_keys(study: Study) -> list[str]:
    """Dotted names of the hyperparameters that the ledger's trials set, numbers only."""
    arms = study.tuning.arms.values() if study.tuning else ()
    settings = [trial.setting for arm in arms for trial in arm.trials]
    return sorted({k for s in settings for k, v in s.items() if isinstance(v, int | float)})


def _sensitivity(key: str) -> Any:
    """Final validation loss of the trials against one hyperparameter."""
    import wandb_workspaces.reports.v2 as wr

    return wr.ScatterPlot(
        title=f"Final validation loss against {key}",
        x=wr.Config(key),
        y=wr.SummaryMetric("final_val_loss"),
        log_x=True,
    )
