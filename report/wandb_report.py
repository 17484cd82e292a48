"""The study as a W&B Report: leaderboard and words from us, panels drawn by W&B from its runs.

`python -m report RUNS... --wandb ENTITY/PROJECT` saves one. Its runs are those in W&B whose group
is the contest (the trainer sets group and job type), so the panels stay live as runs go on; the
leaderboard is a text, and says when it was made.
"""

from datetime import UTC, datetime
from typing import Any

from record.wandb_mirror import one_line
from report import page
from report.runs import ReportError, Study
from report.verdict import Judgement
from report.wandb_source import connect

STEPS, TOKENS, SECONDS = "Step", "tokens", "time/train_seconds"
AXES = {STEPS: "updates", TOKENS: "tokens", SECONDS: "seconds of training"}
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
LOGARITHMIC = ("train/grad_norm",)
NOTE = """\
Lines are means over the seeds of an arm, bands from the lowest to the highest. W&B pairs values of
one step, and at the end of a run there is an evaluation but no update: against tokens and seconds
the last validation loss is missing here. `report.html` has it."""


def publish(study: Study, judgement: Judgement, entity: str, project: str) -> str:
    """Save the report of a study in a W&B project; returns its address.

    Errors: ReportError in one line: no account, no such project, no answer.
    """
    connect()  # says what is wrong with the account; wandb-workspaces would ask on the terminal
    report = build(study, judgement, entity, project)
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


def build(study: Study, judgement: Judgement, entity: str, project: str) -> Any:
    """The report as an object of wandb-workspaces, not saved; nothing is asked of a server."""
    import wandb_workspaces.reports.v2 as wr

    title = f"{study.name}, {len(study.arms)} arms"
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    blocks: list[Any] = [
        wr.MarkdownBlock(text=verdict(judgement)),
        wr.P(text=f"Made {made} by python -m report, whose report.md has more. Below is live."),
        wr.H2(text="Curves"),
        wr.P(text=" ".join(NOTE.split())),
        wr.PanelGrid(runsets=run_sets(study, entity, project), panels=curves()),
    ]
    if keys := tuned_keys(study):
        blocks += [
            wr.H2(text="Tuning"),
            wr.PanelGrid(
                runsets=run_sets(study, entity, project, "tuning"),
                panels=[sensitivity(key) for key in keys],
            ),
        ]
    return wr.Report(
        entity=entity, project=project, title=title[:128], width="fluid", blocks=blocks,
        description=judgement.headline,
    )  # fmt: skip


def verdict(judgement: Judgement) -> str:
    """Headline, leaderboard and what stands behind it, as in report.md."""
    parts = [f"**{page.mark(judgement.headline)}**"]
    make = (page.leaderboard, page.problems, page.comparisons, page.speedup_table, page.planner)
    for section in filter(None, (each(judgement) for each in make)):
        parts += [f"## {page.mark(section.title)}", page.mark(section.text)]
        parts += map(page.markdown_table, section.tables)
        parts += ["\n".join(f"- {page.mark(line)}" for line in section.lines)]
    return "\n\n".join(part for part in parts if part)


def run_sets(study: Study, entity: str, project: str, role: str = "report") -> list[Any]:
    """One for each contest: the runs of its group, an arm each a job type."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    suffix = "" if role == "report" else f"-{role}"
    contests = sorted({run.contest or "" for run in study.runs})
    return [
        wr.Runset(
            entity=entity,
            project=project,
            name=f"{contest or 'runs without a group'}{suffix}",
            filters=expr.And(expr.Metric("Group") == f"{contest}{suffix}"),
            groupby=["JobType"] if role == "report" else [],
        )
        for contest in contests
    ]


def curves() -> list[Any]:
    """The panels of report.html that W&B can draw, and step times as bars."""
    import wandb_workspaces.reports.v2 as wr

    plots = [
        wr.LinePlot(
            title=name if len(axes) == 1 else f"{name} against {AXES[x]}",
            x=x,
            y=[metric],
            title_x=AXES[x],
            log_y=metric in LOGARITHMIC,
            groupby="JobType",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=1000,
        )
        for name, metric, axes in CURVES
        for x in axes
    ]
    bars = {
        "final_val_loss": "Final validation loss",
        "step_ms_median": "Median step, ms",
        "train_seconds": "Seconds of training in all",
    }
    return plots + [
        wr.BarPlot(title=name, metrics=[wr.SummaryMetric(key)], groupby="JobType",
                   groupby_aggfunc="mean", groupby_rangefunc="minmax")
        for key, name in bars.items()
    ]  # fmt: skip


def tuned_keys(study: Study) -> list[str]:
    """Dotted names of the hyperparameters that the ledger's trials set, numbers only."""
    arms = (study.tuning or {}).get("arms", {}).values()
    settings = [trial["setting"] for arm in arms for trial in arm["trials"]]
    numeric = {k for s in settings for k, v in s.items() if isinstance(v, int | float)}
    return sorted(numeric)


def sensitivity(key: str) -> Any:
    """Final validation loss of the trials against one hyperparameter."""
    import wandb_workspaces.reports.v2 as wr

    return wr.ScatterPlot(
        title=f"Final validation loss against {key}",
        x=wr.Config(key),
        y=wr.SummaryMetric("final_val_loss"),
        log_x=True,
    )
