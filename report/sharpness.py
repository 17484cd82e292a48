"""What `python -m analysis sharpness` has measured: a table, and sharpness over loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from statistics import fmean

from record.sharpness import Sharpness
from report import drawing
from report.drawing import Figure, Style
from report.formats import NONE, counted, loss, short
from report.run import Run
from report.sections import Line, Section, Table, arm_line
from report.study import Study

Look = Mapping[str, Style]  # by arm
Measured = list[tuple[Run, list[Sharpness]]]  # by run, in the order of arms and seeds; by step


def section(study: Study) -> Section | None:
    """Each run at its last measured step; None if none was measured."""
    measured, others = _measured(study)
    if not measured:
        return None
    first = measured[0][1][0]
    text = (
        f"On the first {first.tokens:,} {first.split} tokens, at each run's last measured "
        "checkpoint. Eigenvalue: the largest of the Hessian; preconditioned: of the Hessian as the "
        "optimizer scales the gradient, times the learning rate, in parts of the value at which "
        "steps on a quadratic get unstable. Keskar: how far the loss rises in a box, which changes "
        "if weights are rescaled and the function is not; adaptive: in a box of the size of each "
        "weight, which does not change then. None of them decides anything here."
    )
    if others:
        text += (
            f" Not shown: {counted(others, 'measurement')} on other tokens or with other passes."
        )
    box = first.neighbourhoods[0].epsilon if first.neighbourhoods else None
    columns = (
        "arm",
        "seed",
        "step",
        "loss",
        "eigenvalue",
        "preconditioned, of its limit",
        "trace",
        "Keskar, %" if box is None else f"Keskar at {box:g}, %",
        f"adaptive at {first.rho:g}, nats",
    )
    rows = [_row(run, found[-1]) for run, found in measured]
    return Section("sharpness", "Sharpness", text, [Table(columns, rows)], folded=True)


def _row(run: Run, found: Sharpness) -> Line:
    p, boxes = found.preconditioned, found.neighbourhoods
    spread = f"{short(found.trace)} ± {short(found.trace_error, 2)}"
    cells = [
        str(run.seed),
        f"{found.step:,}",
        loss(found.loss),
        short(found.eigenvalues[0]) if found.eigenvalues else NONE,
        short(p.eigenvalue * p.lr / p.limit) if p else NONE,
        NONE if found.trace is None else spread,
        short(boxes[0].all_directions) if boxes else NONE,
        short(found.adaptive),
    ]
    return arm_line(run.arm, cells)


def figures(study: Study, look: Look) -> list[Figure | None]:
    """Sharpness over loss through training (Keskar et al., arXiv:1609.04836)."""
    measured, _ = _measured(study)
    boxes = [
        (run, [(x, x.neighbourhoods[0].all_directions) for x in found if x.neighbourhoods])
        for run, found in measured
    ]
    tops = [
        (run, [(x, x.eigenvalues[0]) for x in found if x.eigenvalues]) for run, found in measured
    ]
    return [
        _figure("sharpness_box", "Keskar's sharpness", "sharpness, %", boxes, look, False),
        _figure("sharpness_top", "Largest eigenvalue", "largest eigenvalue", tops, look, True),
    ]


def _figure(
    id: str,
    title: str,
    axis: str,
    paths: list[tuple[Run, list[tuple[Sharpness, float]]]],
    look: Look,
    folded: bool,
) -> Figure | None:
    """A path for each run, from its first measured checkpoint to its last."""
    shown = [(run, path) for run, path in paths if path]
    if not shown:
        return None
    plot = drawing.new(xaxis={"title": "loss, nats per token"}, yaxis={"title": axis})
    ends: dict[str, list[float]] = {}
    for run, path in shown:
        style = look[run.arm]
        plot.add_scatter(
            x=[found.loss for found, _ in path],
            y=[value for _, value in path],
            mode="lines+markers",
            name=style.label,
            line=style.line,
            marker={"size": 7, "symbol": style.symbol},
            meta={"arm": style.arm},
            customdata=[found.step for found, _ in path],
            hovertemplate=style.hover(f"%{{y:.4g}} at step %{{customdata}}, seed {run.seed}"),
        )
        ends.setdefault(run.arm, []).append(path[-1][1])
    first = shown[0][1][0][0]
    note = (
        f"Each line is a run, each mark a checkpoint; training goes to the left. On the first "
        f"{first.tokens:,} {first.split} tokens."
    )
    means = {arm: short(fmean(values)) for arm, values in ends.items()}
    said = drawing.in_words(f"{title} at the last measured checkpoint, mean over seeds", means)
    return Figure(id, f"{title} over loss", note, said, plot, folded)


def _measured(study: Study) -> tuple[Measured, int]:
    """Measurements of weights as they are that can be compared; and how many are left out.

    On the text that most are on, and with as many passes of ascent, or none: more find more.
    """
    runs = [run for arm in study.arms for run in study.of(arm) if run.sharpness]
    every = [x for run in runs for x in run.sharpness if x.rescaled == 1]
    if not every:
        return [], 0
    kinds = Counter((x.split, x.text, x.passes) for x in every if x.passes)
    kinds = kinds or Counter((x.split, x.text, 0) for x in every)
    ((split, text, passes),) = (kind for kind, _ in kinds.most_common(1))

    def alike(x: Sharpness) -> bool:
        same = x.rescaled == 1 and (x.split, x.text) == (split, text)
        return same and x.passes in (0, passes)

    found = [(run, [x for x in run.sharpness if alike(x)]) for run in runs]
    shown = sum(len(those) for _, those in found)
    return [(run, those) for run, those in found if those], len(every) - shown
