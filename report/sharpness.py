"""What `python -m analysis sharpness` has measured: a table, sharpness over loss, and metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import fmean

from record.sharpness import Sharpness
from report import drawing
from report.drawing import Figure, Style
from report.formats import NONE, counted, loss, short
from report.run import Run
from report.sections import Line, Section, Table, arm_line
from report.study import Study

Look = Mapping[str, Style]  # by arm
Measure = Callable[[Sharpness], float | None]
Measured = list[tuple[Run, list[Sharpness]]]  # by run, in the order of arms and seeds; by step

MEASURES: dict[str, Measure] = {  # of one measurement; a run's last ones may be judged
    "largest_eigenvalue": lambda x: x.eigenvalues[0] if x.eigenvalues else None,
    "keskar_sharpness": lambda x: x.neighbourhoods[0].all_directions if x.neighbourhoods else None,
    "adaptive_sharpness": lambda x: x.adaptive,
}


def with_last(study: Study) -> Study:
    """Adds to each summary what was measured after the run's last update.

    MEASURES, on the text that most measurements are on; train_test_gap: final test loss less the
    loss on as many tokens as most runs were measured on (the most of several) of what each was
    trained on; if none was, of the training split's beginning. Nats per token.
    """
    measured = {id(run): found for run, found in _measured(study)[0]}
    texts = Counter(_text(x) for run in study.runs for x in _on_training_text(run))
    text = max(texts, key=lambda each: (each[0], texts[each], each), default=None)

    def found(run: Run) -> dict[str, float]:
        last = [x for x in measured.get(id(run), []) if x.step == run.summary.get("steps")]
        values = {name: of(x) for x in last for name, of in MEASURES.items()}
        test = run.summary.get("final_test_loss")
        for x in _on_training_text(run):
            if _text(x) == text and test is not None:
                values["train_test_gap"] = test - x.loss
        return {name: value for name, value in values.items() if value is not None}

    runs = [replace(run, summary=run.summary | found(run)) for run in study.runs]
    return replace(study, runs=runs)


def _on_training_text(run: Run) -> list[Sharpness]:
    """Measurements of the weights after its last update, as they are, on training text."""
    ends = [x for x in run.sharpness if x.step == run.summary.get("steps")]
    return [x for x in ends if x.rescaled == 1 and x.split in ("train", "seen")]


def _text(found: Sharpness) -> tuple[bool, int, str]:
    """Whether the run was trained on it, its tokens and, if it is the same for all, its hash."""
    seen = found.split == "seen"
    return seen, found.tokens, "" if seen else found.text


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
        "weight, which does not change then. test loss - train loss: at the end; the training loss "
        "is of what the run was trained on where that was measured (--split seen), else of the "
        "training split's beginning. None of them decides anything here."
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
        "test loss - train loss",
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
        loss(run.summary.get("train_test_gap")),
    ]
    return arm_line(run.arm, cells)


def figures(study: Study, look: Look) -> list[Figure | None]:
    """Sharpness over loss through training (Keskar et al., arXiv:1609.04836)."""
    measured, _ = _measured(study)
    drawn = (
        ("sharpness_box", "Keskar's sharpness", "sharpness, %", "keskar_sharpness"),
        ("sharpness_top", "Largest eigenvalue", "largest eigenvalue", "largest_eigenvalue"),
        ("sharpness_adaptive", "Adaptive sharpness", "rise, nats per token", "adaptive_sharpness"),
    )
    found: list[Figure | None] = []
    for id, title, axis, name in drawn:
        of = MEASURES[name]
        values = [(run, [(x, of(x)) for x in those]) for run, those in measured]
        paths = [(run, [(x, y) for x, y in path if y is not None]) for run, path in values]
        found.append(_figure(id, title, axis, paths, look, folded=bool(found)))
    return found


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
    every = [x for run in runs for x in run.sharpness if x.rescaled == 1 and not x.only_loss]
    if not every:
        return [], 0
    kinds = Counter((x.split, x.text, x.passes) for x in every if x.passes)
    kinds = kinds or Counter((x.split, x.text, 0) for x in every)
    ((split, text, passes),) = (kind for kind, _ in kinds.most_common(1))

    def alike(x: Sharpness) -> bool:
        same = x.rescaled == 1 and (x.split, x.text) == (split, text)
        return same and not x.only_loss and x.passes in (0, passes)

    found = [(run, [x for x in run.sharpness if alike(x)]) for run in runs]
    shown = sum(len(those) for _, those in found)
    return [(run, those) for run, those in found if those], len(every) - shown
