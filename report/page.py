"""report.md, results.csv and report.html: one set of tables, three ways to write it.

report.html is one file: style, script, plotly.js and the data are in it, and it asks no network.
All that comes from files (names of arms, errors, configurations) is escaped where it is written.
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from report.figures import BASELINE_COLOUR, Figure, Style, axis_words, figures, styles
from report.runs import Run, Study, value_at
from report.statistics import RESAMPLES
from report.verdict import AXES, COSTS, Comparison, Judgement, Row, Spread

ASSETS = Path(__file__).parent
SHOWN_PROBLEMS = 200  # lines; more are counted, and those of runs are in results.csv


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell. kind: a class of style; arm: whose row it begins."""

    text: str
    kind: str = ""
    arm: str | None = None


Line = list[str | Cell]


@dataclass(frozen=True)
class Table:
    """Rows of strings or Cells."""

    columns: Sequence[str]
    rows: Sequence[Line]


@dataclass(frozen=True)
class Section:
    """A heading, what to know, and tables. folded: closed at first on the page."""

    id: str
    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    lines: Sequence[str] = field(default_factory=list)
    folded: bool = False


def write(study: Study, judgement: Judgement, folder: Path, command: str) -> list[Path]:
    """Write the three files; returns their paths. `command`: what the user typed."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.md": markdown(study, judgement, command),
        "results.csv": results(study),
        "report.html": page(study, judgement, command),
    }
    for name, text in texts.items():
        beside = folder / f".{name}.new"
        beside.write_text(text, encoding="utf-8")
        beside.replace(folder / name)
    return [folder / name for name in texts]


# ---------------------------------------------------------------------------------------- numbers


def loss(x: float | None) -> str:
    """Nats to four decimals."""
    if x is None or math.isnan(x):
        return "–"
    return f"{x:.4f}" if math.isfinite(x) else "∞"


def signed(x: float | None) -> str:
    """A difference in nats."""
    return "–" if x is None else f"{x:+.4f}".replace("-", "−")


def interval(low: float | None, high: float | None, form: Callable[[float | None], str]) -> str:
    """[low, high]."""
    return "–" if low is None or high is None else f"[{form(low)}, {form(high)}]"


def short(x: float | None, digits: int = 3) -> str:
    """Significant digits; a miss is "not reached"."""
    if x is None or (isinstance(x, float) and math.isnan(x)):
        return "–"
    if math.isinf(x):
        return "not reached"
    return f"{x:,.0f}" if abs(x) >= 10**digits else f"{x:.{digits}g}"


def probability(p: float | None) -> str:
    """A p value."""
    return "–" if p is None else ("< 0.0001" if p < 1e-4 else f"{p:.2g}")


def ranged(s: Spread | None) -> str:
    """Median (lowest to highest)."""
    if s is None:
        return "–"
    middle = short(s.median)
    return middle if s.low == s.high else f"{middle} ({short(s.low)} to {short(s.high)})"


def setting(values: Mapping[str, Any]) -> str:
    """A tuned setting."""
    return ", ".join(f"{key} = {value}" for key, value in values.items()) or "–"


# --------------------------------------------------------------------------------------- sections


def sections(study: Study, judgement: Judgement, command: str) -> list[Section]:
    """Everything but the headline and the figures, in the order of reading."""
    found = [
        leaderboard(judgement),
        problems(judgement),
        comparisons(judgement),
        speedup_table(judgement),
        target_table(judgement),
        planner(judgement),
        tuning(study, judgement),
        costs(judgement),
        scores(judgement),
        runs_table(study),
        provenance(study, command),
    ]
    return [section for section in found if section is not None]


def arm_cell(row: Row) -> Cell:
    """First cell of an arm's row."""
    return Cell(row.arm, "arm", row.arm)


def call_cell(row: Row) -> Cell:
    """The verdict in words."""
    if row.comparison is None:
        return Cell("baseline" if row.is_baseline else "no verdict: one arm", "baseline")
    return Cell(row.comparison.words, row.comparison.call.replace(" ", "-"))


def seeds(row: Row) -> str:
    """n, and how many were planned where that is more."""
    return str(row.n) if row.n == row.planned else f"{row.n} of {row.planned}"


def leaderboard(judgement: Judgement) -> Section:
    """One line per arm, best mean first."""
    name = judgement.metric.replace("_", " ")
    columns = (
        "arm", "verdict", name, "95 %", "std", "n", "difference", "95 % of it", "p (Holm)",
        "speed-up: tokens", "speed-up: seconds", "lr factor: mean", "lr factor: last",
    )  # fmt: skip
    rows: list[Line] = []
    for row in judgement.rows:
        c = row.comparison
        fast = {axis: row.speedups[axis].words if axis in row.speedups else "–" for axis in AXES}
        rows.append([
            arm_cell(row), call_cell(row), Cell(loss(row.mean), "strong"),
            interval(row.low, row.high, loss), loss(row.std), seeds(row),
            signed(c.difference if c else None),
            interval(c.low, c.high, signed) if c else "–", probability(c.p_holm if c else None),
            fast["tokens"], fast["seconds"], short(row.mean_lr_factor), short(row.last_lr_factor),
        ])  # fmt: skip
    text = (
        "Ordered by mean, which is no verdict: only better and worse are, at p < 0.05 after Holm's "
        "correction over the arms. A difference below zero is better. std is of the seeds, for "
        "each arm its own."
    )
    return Section("leaderboard", "Leaderboard", text, [Table(columns, rows)])


def problems(judgement: Judgement) -> Section | None:
    """What is wrong with the runs."""
    lines = judgement.problems[:SHOWN_PROBLEMS]
    if len(judgement.problems) > len(lines):
        more = len(judgement.problems) - len(lines)
        lines = [*lines, f"... and {more} more; those of runs are in results.csv"]
    text = "Nothing was left out without a line here."
    return (
        Section("problems", f"Problems ({len(judgement.problems)})", text, [], lines)
        if lines
        else None
    )


def comparisons(judgement: Judgement) -> Section | None:
    """Each test in full."""
    rows = [(row, row.comparison) for row in judgement.rows if row.comparison]
    if not rows:
        return None
    columns = ("arm", "verdict", "difference", "95 % t", "95 % BCa", "p", "p (Holm)", "method",
               "pairs", "to know")  # fmt: skip
    table: list[Line] = [
        [
            arm_cell(row), call_cell(row), signed(c.difference), interval(c.low, c.high, signed),
            interval(c.bca_low, c.bca_high, signed), probability(c.p), probability(c.p_holm),
            c.method or "–", str(len(c.differences)), to_know(c),
        ]
        for row, c in rows
    ]  # fmt: skip
    text = (
        "Paired by (seed, data_seed) with Student's t; Welch's t where pairs are missing. The BCa "
        f"bootstrap ({RESAMPLES:,} resamples) stands beside it: with few seeds it is too narrow, "
        "and it decides nothing."
    )
    return Section("comparisons", "Comparisons", text, [Table(columns, table)])


def to_know(comparison: Comparison) -> str:
    """Notes of a comparison."""
    return "; ".join(comparison.notes) or "–"


def speedup_table(judgement: Judgement) -> Section | None:
    """Four axes with intervals."""
    rows = [row for row in judgement.rows if row.speedups]
    if not rows:
        return None
    table: list[Line] = [
        [arm_cell(row), *(speedup_cell(row, axis) for axis in AXES)] for row in rows
    ]
    text = (
        "What the baseline spends on its mean final val loss over what the arm spends on the same "
        "loss, interpolated on the mean val curves; 95 % bootstrap over seeds. 0 in an interval: "
        "not reached in such a draw. FLOPs are the model's; an optimizer's own show in seconds."
    )
    columns = ["arm", *map(axis_words, AXES)]
    return Section("speedups", "Speed-ups", text, [Table(columns, table)])


def speedup_cell(row: Row, axis: str) -> str:
    """Ratio and interval."""
    s = row.speedups.get(axis)
    if s is None:
        return "not recorded"
    tail = "" if s.low is None or s.high is None or not s.ratio else f" [{s.low:.2f}, {s.high:.2f}]"
    return s.words + tail


def target_table(judgement: Judgement) -> Section | None:
    """Costs of the target."""
    rows = [row for row in judgement.rows if row.to_target]
    if judgement.target is None or not rows:
        return None
    names = ("steps_to_target", "tokens_to_target", "seconds_to_target")
    table: list[Line] = [
        [arm_cell(row), *(ranged(row.to_target.get(name)) for name in names)] for row in rows
    ]
    text = (
        f"At the first evaluation with val loss at or below {judgement.target:.4f}, median (lowest "
        "to highest) over seeds. The default target is the baseline's mean final val loss, which "
        "about half of its own seeds miss by a little."
    )
    columns = ("arm", "steps", "tokens", "seconds")
    return Section("target", "Cost of the target", text, [Table(columns, table)])


def planner(judgement: Judgement) -> Section | None:
    """What more seeds would show."""
    p = judgement.planner
    if p.sigma is None and p.sigma_paired is None:
        return None
    shows: list[Line] = [[str(n), loss(a), loss(b)] for n, (a, b) in p.detectable.items()]
    need: list[Line] = [[short(d), many(a), many(b)] for d, (a, b) in p.needed.items()]
    text = (
        f"Pooled std {loss(p.sigma)} between seeds, {loss(p.sigma_paired)} between paired "
        "differences. At 80 % power and alpha 0.05, two-sided, for one comparison. Unpaired is "
        "Student's formula: Welch's test, which decides, sees somewhat less with few seeds."
    )
    tables = [
        Table(("seeds per arm", "smallest difference shown, unpaired", "paired"), shows),
        Table(("wanted difference", "seeds per arm, unpaired", "paired"), need),
    ]
    return Section("planner", "How many seeds", text, tables)


def many(n: int | None) -> str:
    """Seeds, or that it is hopeless."""
    return "–" if n is None else str(n)


def tuning(study: Study, judgement: Judgement) -> Section | None:
    """The ledger and the sensitivity."""
    rows = [row for row in judgement.rows if row.tuned]
    tables = []
    if rows:
        titles = ("arm", "setting", "trials", "at the edge", "tuned", "default", "gap")
        tables.append(Table(titles, [tuned_row(row) for row in rows]))
    if judgement.sensitivity:
        rates: list[Line] = [
            [arm, loss(s.score), loss(min(s.losses.values())), str(len(s.losses)), s.note or "–"]
            for arm, s in judgement.sensitivity.items()
        ]
        columns = ("arm", "sensitivity to lr", "best loss", "rates", "to know")
        tables.append(Table(columns, rates))
    ledger = study.tuning or {}
    how = f"Method: {ledger.get('method')}. " if ledger.get("method") else ""
    text = (
        f"{how}On seeds of their own, never those of the leaderboard. Gap: loss of the default "
        "setting minus the tuned one. Sensitivity (Wortsman et al. 2023): mean over the rates of "
        "min(loss, loss before training) minus the best."
    )
    return Section("tuning", "Tuning", text, tables) if tables else None


def tuned_row(row: Row) -> Line:
    """One arm of the ledger."""
    t = row.tuned
    assert t is not None
    edges = Cell(", ".join(t.edges), "worse") if t.edges else "no"
    return [arm_cell(row), setting(t.setting), str(t.trials), edges, loss(t.best_loss),
            loss(t.default_loss), loss(t.gap)]  # fmt: skip


COST_TITLES = {
    "train_seconds": "seconds",
    "step_ms_median": "ms per update",
    "step_ms_p99": "p99",
    "optimizer_ms_median": "optimizer ms",
    "data_wait_ms_median": "data ms",
    "tokens_per_second": "tokens/s",
    "mfu": "MFU",
    "peak_memory_gib": "GiB",
    "optimizer_state_bytes_per_parameter": "state bytes per parameter",
}


def costs(judgement: Judgement) -> Section:
    """Time and memory."""
    names = [name for name in COSTS if any(name in row.costs for row in judgement.rows)]
    table: list[Line] = [
        [arm_cell(row), *(ranged(row.costs.get(n)) for n in names)] for row in judgement.rows
    ]
    text = "Median (lowest to highest) over the runs of an arm, diverged and unfinished ones too."
    columns = ["arm", *(COST_TITLES[name] for name in names)]
    return Section("costs", "Costs", text, [Table(columns, table)])


def scores(judgement: Judgement) -> Section:
    """Spikes, noise and the legacy numbers."""
    names = {
        "best_val_loss": "best val loss",
        "loss_noise": "loss noise",
        "spike_score": "spikes, %",
        "stability_score": "stability",
        "converged_step": "converged step",
        "avg_loss": "average loss",
        "avg_grad_norm": "average gradient norm",
    }
    table: list[Line] = [
        [arm_cell(row), str(row.diverged), *(ranged(row.scores.get(name)) for name in names)]
        for row in judgement.rows
    ]
    text = (
        "Median (lowest to highest). Stability and converged step are those of a 2024 study: the "
        "first punishes learning, the second finds noise; neither ranks."
    )
    columns = ("arm", "diverged", *names.values())
    return Section("scores", "Stability, spikes and noise", text, [Table(columns, table)])


def runs_table(study: Study) -> Section:
    """Every run, whatever became of it."""
    columns = ("run", "arm", "role", "seed", "data seed", "status", "final val loss", "steps",
               "weights", "batches")  # fmt: skip
    rows: list[Line] = [
        [
            run.name, run.arm, run.role, str(run.seed), str(run.data_seed),
            Cell("diverged" if run.diverged else run.status, "" if run.done else "worse"),
            loss(run.summary.get("final_val_loss")), short(run.summary.get("steps"), 9),
            run.hashes.get("weights", "–")[:8], run.hashes.get("batches", "–")[:8],
        ]
        for run in study.runs
    ]  # fmt: skip
    text = "The hashes of the initial weights and first batches are equal for equal seeds."
    return Section("runs", f"Runs ({len(rows)})", text, [Table(columns, rows)], folded=True)


FACTS = ("device", "cpu", "host", "python", "cuda", "dtype", "world_size", "threads")


def provenance(study: Study, command: str) -> Section:
    """Where the numbers come from, and how to have them again."""
    rows: list[Line] = []
    for name in FACTS:
        rows.append([name, counted(run.environment.get(name) for run in study.runs)])
    for package in ("torch", "numpy", "wandb"):
        versions = ((run.environment.get("versions") or {}).get(package) for run in study.runs)
        rows.append([package, counted(versions)])
    commits = ((run.environment.get("git") or {}) for run in study.runs)
    rows.append(["commit", counted(commit_of(git) for git in commits)])
    for key in ("model", "data", "train", "eval"):
        tables = (
            json.dumps(run.config[key], sort_keys=True) for run in study.runs if key in run.config
        )
        rows.append([f"[{key}]", counted(tables)])
    rows = [row for row in rows if row[1]]
    again = [
        f"this report: {command}",
        *(f"{run.arm}, once more: python train_gpt2.py {run.source}/config.toml"
          for run in first_of_each(study)),
    ]  # fmt: skip
    return Section(
        "provenance", "Provenance", "", [Table(("what", "runs"), rows)], again, folded=True
    )


def first_of_each(study: Study) -> list[Run]:
    """A run of each arm whose configuration is at hand."""
    found = ([run for run in study.of(arm) if run.config] for arm in study.arms)
    return [runs[0] for runs in found if runs]


def commit_of(git: Mapping[str, Any]) -> str | None:
    """Commit, and whether files differed."""
    commit = git.get("commit")
    return f"{str(commit)[:12]}{' with changes' if git.get('dirty') else ''}" if commit else None


def counted(values: Iterable[Any]) -> str:
    """Distinct values, with how many runs have each where they differ."""
    seen: dict[str, int] = {}
    for value in values:
        if value is not None:
            seen[str(value)] = seen.get(str(value), 0) + 1
    if len(seen) <= 1:
        return next(iter(seen), "")
    shown = [f"{value} ({n})" for value, n in list(seen.items())[:8]]
    return "; ".join(shown) + (f"; {len(seen) - 8} more" if len(seen) > 8 else "")


# ------------------------------------------------------------------------------- report.md and csv


def markdown(study: Study, judgement: Judgement, command: str) -> str:
    """The report without its figures, for a terminal, an issue or a pull request."""
    parts = [f"# {mark(study.name)}", f"**{mark(judgement.headline)}**"]
    for section in sections(study, judgement, command):
        parts.append(f"## {mark(section.title)}")
        parts += [mark(section.text)] if section.text else []
        parts += [markdown_table(table) for table in section.tables]
        parts += ["\n".join(f"- {mark(line)}" for line in section.lines)] if section.lines else []
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """GitHub's form."""
    rows = [[mark(text_of(cell)) for cell in row] for row in table.rows]
    lines = [map(mark, table.columns), ["---"] * len(table.columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mark(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def text_of(cell: str | Cell) -> str:
    """A cell's text."""
    return cell.text if isinstance(cell, Cell) else cell


def results(study: Study) -> str:
    """One line per run: identity, hyperparameters, every number of its summary, its problems."""
    numbers = list(dict.fromkeys(name for run in study.runs for name in run.summary))
    numbers = [n for n in numbers if n not in ("run", "status", "nonfinite", "diverged")]
    keys = list(dict.fromkeys(
        f"{table}.{key}" for run in study.runs for table in ("optimizer", "schedule", "train")
        for key in (run.config.get(table) or {})
    ))  # fmt: skip
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    first = ["run", "contest", "arm", "role", "seed", "data_seed", "status", "diverged"]
    last = ["weights_hash", "batches_hash", "source", "problems"]
    writer.writerow([*first, *numbers, *keys, *last])
    for run in study.runs:
        identity = [run.name, run.contest, run.arm, run.role, run.seed, run.data_seed, run.status]
        writer.writerow([safe(v) for v in (
            *identity, run.diverged, *(run.summary.get(name) for name in numbers),
            *(value_at(run.config, key) for key in keys), run.hashes.get("weights"),
            run.hashes.get("batches"), run.source, "; ".join(run.problems),
        )])  # fmt: skip
    return file.getvalue()


def safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe."""
    if isinstance(value, str) and value[:1] in "=+-@\t\r" and value:
        return f"'{value}"
    return value


# ------------------------------------------------------------------------------------ report.html


def page(study: Study, judgement: Judgement, command: str) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    drawn, look = figures(study, judgement), styles(study)
    own = sections(study, judgement, command)
    first, rest = own[:1], own[1:]
    if rest and rest[0].id == "problems":
        first, rest = own[:2], own[2:]
    chips = "".join(chip(arm, style) for arm, style in look.items())
    links = [(s.id, s.title) for s in first] + [("figures", "Figures")]
    links += [(s.id, s.title) for s in rest]
    assets = {name: (ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")}
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(study.name)}</title>
<link rel="icon" href="data:,">
<style>{assets["page.css"]}</style>
</head>
<body>
<header>
<div class="top"><p class="kicker">Optimizer bench · {facts(study, judgement)}</p>
<button id="theme" type="button" title="light or dark">◐</button></div>
<h1>{html.escape(study.name)}</h1>
<p class="headline">{html.escape(judgement.headline)}</p>
<nav>{"".join(f'<a href="#{id}">{html.escape(title)}</a>' for id, title in links)}</nav>
</header>
<main>
{"".join(html_section(section) for section in first)}
<section id="figures"><h2>Figures</h2>
<div class="controls"><div class="chips" aria-label="arms: click hides and shows, double click shows
 one alone">{chips}</div>
<div class="axes" role="group" aria-label="horizontal axis"><span>against</span>
<button type="button" data-axis="steps" aria-pressed="true">steps</button>
<button type="button" data-axis="tokens" aria-pressed="false">tokens</button>
<button type="button" data-axis="seconds" aria-pressed="false">seconds</button></div></div>
<div class="grid">{"".join(map(html_figure, drawn))}</div></section>
{"".join(html_section(section) for section in rest)}
</main>
<footer>Made {when}. Medians, intervals and verdicts are explained in docs/report.md.</footer>
<script>{get_plotlyjs()}</script>
<script>{assets["page.js"]}</script>
</body>
</html>
"""


def facts(study: Study, judgement: Judgement) -> str:
    """What was compared, in a line."""
    runs = [run for run in study.runs if run.role == "report"]
    parts = [f"{len(study.arms)} arms", f"{len(runs)} runs"]
    parts += [f"baseline {study.baseline}"] if study.baseline else []
    steps = {run.total_steps for run in runs if run.total_steps}
    parts += [f"{steps.pop():,} steps"] if len(steps) == 1 else []
    return html.escape(" · ".join(parts))


def chip(arm: str, style: Style) -> str:
    """The switch of one arm; striped where its lines are dashed."""
    base, c = " base" if style.colour == BASELINE_COLOUR else "", style.colour
    stripes = f"repeating-linear-gradient(90deg,{c} 0 3px,#fff 3px 5px)"
    fill = c if style.dash == "solid" else stripes
    return (
        f'<button type="button" class="chip{base}" data-arm="{html.escape(arm)}" '
        f'aria-pressed="true"><i style="background:{fill}"></i>{style.label}</button>'
    )


def html_section(section: Section) -> str:
    """A section; folded ones open by a click."""
    body = f"<p>{html.escape(section.text)}</p>" if section.text else ""
    body += "".join(map(html_table, section.tables))
    if section.lines:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in section.lines)
        body += f"<ul>{items}</ul>"
    title = html.escape(section.title)
    if section.folded:
        body = f"<details><summary><h2>{title}</h2></summary>{body}</details>"
        return f'<section id="{section.id}">{body}</section>'
    return f'<section id="{section.id}"><h2>{title}</h2>{body}</section>'


def html_table(table: Table) -> str:
    """A table that scrolls by itself where it is wider than the screen."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    body = "".join(html_row(row) for row in table.rows)
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def html_row(row: Line) -> str:
    """A table's row; that of an arm can be hidden with it."""
    first = row[0]
    arm = first.arm if isinstance(first, Cell) else None
    opening = f'<tr data-arm="{html.escape(arm)}">' if arm is not None else "<tr>"
    return f"{opening}{''.join(map(html_cell, row))}</tr>"


def html_cell(cell: str | Cell) -> str:
    """A cell: verdicts are badges, arms carry their colour."""
    if isinstance(cell, str):
        return f"<td{' class=long' if len(cell) > 60 else ''}>{html.escape(cell)}</td>"
    text = html.escape(cell.text)
    if cell.kind == "arm":
        return f'<td class="arm"><i></i>{text}</td>'
    if cell.kind in ("", "strong"):
        return f"<td>{f'<b>{text}</b>' if cell.kind else text}</td>"
    word, colon, why = text.partition(": ")
    tail = f'<span class="why">{why}</span>' if colon else ""
    return f'<td class="verdict"><span class="badge {cell.kind}">{word}</span>{tail}</td>'


def html_figure(figure: Figure) -> str:
    """A figure's place and its data; the script draws it when it comes into sight."""
    import plotly.io

    data = plotly.io.to_json(figure.plot, validate=False).replace("<", "\\u003c")
    return (
        f'<figure id="fig-{figure.id}">'
        f"<figcaption><h3>{html.escape(figure.title)}</h3></figcaption>"
        f'<div class="plot" style="height:{figure.plot.layout.height}px"></div>'
        f"<p>{html.escape(figure.note)}</p>"
        f'<script type="application/json">{data}</script></figure>'
    )
