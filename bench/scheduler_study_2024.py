# ruff: noqa: E501  the prose of the document, with its numbers in place
"""A published study of ten schedulers, recomputed: what its own record says about its ranking.

The study: H. Motsepe, "Evaluating Learning Rate Scheduling Techniques on Mr. Karpathy's GPT-2",
2 August 2024; its record and the table that its notebook prints: github.com/Motsepe-Jr/gpt2 at
37411fd (MIT, says its README), files notebooks/learning_rates.json, learning_rates_metric.ipynb.
docs/results/scheduler_study_2024.json is that record, digits unchanged, white space removed.

    python -m bench.scheduler_study_2024                      # prints part one of schedulers.md
    python -m bench.scheduler_study_2024 RECORD.json --figure docs/results/scheduler_study_2024.svg

Nothing is trained here, and no number of the document is typed by hand.
"""

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from record.metrics import summarize

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RECORD = RESULTS / "scheduler_study_2024.json"
FIGURE = RESULTS / "scheduler_study_2024.svg"

# Our names (docs/record.md), and how the study printed them.
COLUMNS = {
    "final_train_loss": ("final loss", "{:.6f}"),
    "avg_loss": ("average loss", "{:.6f}"),
    "avg_grad_norm": ("average gradient norm", "{:.6f}"),
    "converged_step": ("converged step", "{}"),
    "stability_score": ("stability score", "{:.4f}"),
    "train_seconds": ("total time, s", "{:.2f}"),
}

# The table as the study's notebook printed it, in the order of COLUMNS.
PRINTED = {
    "Constant": "5.853835 6.503897 1.705478 13 0.4972 1972.76",
    "Step": "5.151307 5.534471 0.493683 1 0.8183 2364.65",
    "MultiStep": "4.607251 4.868881 0.839494 15 0.8611 2397.08",
    "Exponential": "4.263788 4.406377 0.883760 6 0.9187 2336.36",
    "CosineAnnealing": "4.081490 4.256855 1.893919 4 0.8792 2333.75",
    "Linear": "3.830209 4.004350 2.384964 20 0.8900 2277.02",
    "Polynomial": "3.678876 3.869423 1.771231 11 0.8238 2249.94",
    "Cyclic": "3.981298 3.681562 3.924705 9 0.9388 2306.04",
    "OneCycle": "3.355333 3.594094 3.228172 48 0.8840 2271.37",
    "CosineAnnealingWarmRestarts": "3.689159 3.854160 2.590929 never 0.8027 2240.12",
}

VOCABULARY = 50304  # rows of the study's output layer: a model that knows nothing has loss ln(rows)
BATCH = 524_288  # tokens per update, the study's total_batch_size
TEXT = 338_025  # tinyshakespeare in GPT-2 tokens (nanoGPT, data/shakespeare: 301,966 + 36,059)

Study = dict[str, dict[str, Any]]


def lines(arm: dict[str, Any]) -> list[dict[str, Any]]:
    """One arm as the lines of a metrics.jsonl; the study's times are seconds per update."""
    seconds = np.cumsum(arm["times"])
    rows = zip(arm["losses"], arm["norms"], arm["lrs"], seconds, strict=True)
    return [
        {
            "step": step,
            "train/loss": loss,
            "train/grad_norm": norm,
            "train/lr": rate,
            "time/train_seconds": float(clock),
        }
        for step, (loss, norm, rate, clock) in enumerate(rows)
    ]


def table(study: Study) -> dict[str, list[str]]:
    """The study's table by this project's metrics, to the study's digits; one row per arm."""
    rows = {}
    for name, arm in study.items():
        summary = summarize(lines(arm), len(arm["losses"]))
        rows[name] = [
            "never" if summary[key] is None else form.format(summary[key])
            for key, (_, form) in COLUMNS.items()
        ]
    return rows


def differences(rows: dict[str, list[str]]) -> list[str]:
    """Cells that are not what the study printed, in words."""
    return [
        f"{name}, {column}: printed {printed}, here {ours}"
        for name, text in PRINTED.items()
        for (column, _), printed, ours in zip(
            COLUMNS.values(), text.split(), rows[name], strict=True
        )
        if printed != ours
    ]


def order(study: Study) -> dict[str, Any]:
    """What the record says about the order in which the arms ran."""
    arms = list(study.values())
    first = np.array([arm["losses"][0] for arm in arms])
    final = np.array([arm["losses"][-1] for arm in arms])
    position = np.arange(len(arms))
    mean_rate = [np.mean(arm["lrs"]) for arm in arms]
    later = np.concatenate([np.abs(np.diff(arm["losses"])) for arm in arms[1:]])
    jumps = first[1:] - final[:-1]
    return {
        "first": first,
        "final": final,
        "jumps": jumps,
        "inside": np.median(later),
        "final_by_order": spearmanr(position, final),
        "average_by_order": spearmanr(position, [np.mean(arm["losses"]) for arm in arms]),
        "final_by_rate": spearmanr(mean_rate, final),
    }


def same_rates(study: Study) -> list[tuple[str, str]]:
    """Pairs of arms whose learning rates are equal in every bit of every update."""
    names = list(study)
    return [
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if study[a]["lrs"] == study[b]["lrs"]
    ]


def figure(study: Study, path: Path) -> None:
    """The ten curves end to end, and final loss against position; SVG without date or ids."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    style: dict[Any, Any] = {
        "svg.hashsalt": "study",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
    }
    with mpl.rc_context(style):
        fig, (curve, ranks) = plt.subplots(
            1, 2, figsize=(12, 4.6), width_ratios=(2.6, 1), layout="constrained"
        )
        colours = mpl.colormaps["viridis"](np.linspace(0, 0.88, len(study)))
        at = 0
        for k, ((name, arm), colour) in enumerate(
            zip(study.items(), colours, strict=True), start=1
        ):
            n = len(arm["losses"])
            curve.plot(np.arange(at, at + n), arm["losses"], color=colour, linewidth=1.6)
            curve.axvline(at, color="0.85", linewidth=0.8, zorder=0)
            curve.text(
                at + n / 2,
                11.6,
                name.replace("Annealing", "\nAnnealing").replace("Warm", "\nWarm"),
                rotation=38,
                fontsize=8,
                ha="left",
                va="bottom",
                color=colour,
            )
            ranks.plot(k, arm["losses"][-1], "o", color=colour)
            at += n
        curve.axhline(np.log(VOCABULARY), color="0.5", linestyle=":", linewidth=1)
        curve.text(
            at,
            np.log(VOCABULARY) - 0.1,
            "loss of a model that knows nothing",
            ha="right",
            va="top",
            fontsize=8,
            color="0.35",
        )
        curve.set(
            xlabel="updates since the study began",
            ylabel="train loss, nats",
            xlim=(0, at),
            ylim=(3, 11.5),
        )
        rho = order(study)["final_by_order"].statistic
        ranks.set(
            xlabel="position in the order of running",
            ylabel="final loss, nats",
            xticks=range(1, len(study) + 1),
        )
        ranks.set_title(f"Spearman {rho:.3f}", fontsize=10)
        for axis in (curve, ranks):
            axis.spines[["top", "right"]].set_visible(False)
        fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(fig)


def document(study: Study) -> str:
    """Part one of docs/results/schedulers.md."""
    facts, rows, names = order(study), table(study), list(study)
    steps = len(study[names[0]]["losses"])
    wrong = differences(rows)
    cells = sum(map(len, rows.values()))
    agreement = f"{cells - len(wrong)} of {cells} cells are equal to what the study printed."
    parts = [
        HEAD.format(
            arms=len(study),
            steps=steps,
            passes=steps * BATCH / TEXT,
            agreement=" ".join([agreement, *wrong]),
        )
    ]
    heads = [title for title, _ in COLUMNS.values()]
    body = [[name, *row] for name, row in rows.items()]
    parts.append(markdown(["arm, in the order of running", *heads], body))
    parts.append(times(study, rows))
    parts.append(confounded(study, facts, steps))
    handover = [
        [
            name,
            number(facts["first"][k]),
            number(facts["final"][k - 1]) if k else "",
            f"{facts['jumps'][k - 1]:+.3f}" if k else "",
            number(facts["final"][k]),
            f"{study[name]['norms'][0]:.2f}",
        ]
        for k, name in enumerate(names)
    ]
    heads = ["arm", "first loss", "previous arm's last", "difference", "last loss", "first norm"]
    parts.append(markdown(heads, handover))
    parts.append(remaining(study, facts))
    return "\n\n".join(map(fill, "\n\n".join(parts).split("\n\n"))) + "\n"


HEAD = """\
## The study as published

[Evaluating Learning Rate Scheduling Techniques on Mr. Karpathy's GPT-2](https://motsepe-jr.github.io/blogs/learningrate)
(H. Motsepe, 2 August 2024) trains GPT-2 124M on tinyshakespeare with {arms} schedulers, {steps} updates of
524,288 tokens each, and ranks them by final train loss, "training stability" and time. Its
[repository](https://github.com/Motsepe-Jr/gpt2/tree/37411fd940e6b7a3234488cd1e322a21382214a6) holds every
loss, gradient norm, learning rate and step time, which is more than most papers give, and makes this check
possible. Each arm reads the text {passes:.0f} times; there is no validation loss.

The numbers below come from `python -m bench.scheduler_study_2024`, which puts that record
([copy](scheduler_study_2024.json)) through this project's own metrics (`record/metrics.py`).
{agreement}"""


def times(study: Study, rows: dict[str, list[str]]) -> str:
    """Two slips of the article's text, and why its times compare the machine with itself."""
    score = {name: float(row[4]) for name, row in rows.items()}
    best = max(score, key=score.__getitem__)
    seconds = {name: sum(arm["times"]) for name, arm in study.items()}
    fastest = min(seconds, key=seconds.__getitem__)
    clock = study[fastest]["times"]
    later = [np.median(arm["times"]) for name, arm in study.items() if name != fastest]
    return f"""\
Two sentences of the article differ from this table: the best stability score, {score[best]:.4f}, is {best}'s and
not OneCycle's ({score["OneCycle"]:.4f}), and the fastest arm is {fastest} ({seconds[fastest]:.2f} s), not
CosineAnnealingWarmRestarts. Nor can the times tell schedulers apart, which cost one multiplication an
update: within {fastest}'s run the step goes from {np.median(clock[1:6]):.0f} s (median of updates 1 to 5) to {np.median(clock[-5:]):.0f} s (last
five), and the medians of the arms that follow are {min(later):.0f} to {max(later):.0f} s. The machine became slower."""


def confounded(study: Study, facts: dict[str, Any], steps: int) -> str:
    """The claim: the order of running explains the ranking."""
    by_order, by_rate = facts["final_by_order"], facts["final_by_rate"]
    (pair,) = same_rates(study)
    finals = {name: arm["losses"][-1] for name, arm in study.items()}
    middle = study[pair[1]]["losses"][0]
    names = list(study)
    k = int(np.argmax(np.abs(facts["jumps"])))
    before = study[names[k]]["losses"]
    exception = (
        f" The largest, {facts['jumps'][k]:+.2f} into {names[k + 1]}, undoes the rise of\n  "
        f"{before[-1] - before[-3]:.2f} that {names[k]} ended with in its last two updates."
    )
    return f"""\
### The order of running explains the ranking

![The ten curves laid end to end; final loss against position](scheduler_study_2024.svg)

The program builds one model and one optimizer, and then trains the arms one after the other on them. So
there are not {len(study)} runs of {steps} updates but one of {len(study) * steps}, whose learning rate changes its shape
{len(study) - 1} times:

- **The later an arm ran, the lower its final loss**: Spearman {by_order.statistic:.3f} (p = {by_order.pvalue:.1g}); for the
  average loss {facts["average_by_order"].statistic:.3f}. With the mean learning rate, which the schedules set, it is {by_rate.statistic:.2f} (p = {by_rate.pvalue:.2f}).
- **Each arm starts where the last one ended.** A GPT-2 with fresh weights has a loss near ln {VOCABULARY} =
  {np.log(VOCABULARY):.2f}. {names[0]}, the first, starts at {facts["first"][0]:.2f}; the others start at
  {facts["first"][1]:.2f} to {facts["first"][-1]:.2f}. From one arm's last loss to the next one's first the median
  change is {np.median(np.abs(facts["jumps"])):.3f} nats; within arms 2 to {len(study)} the median change from one update to
  the next is {facts["inside"]:.3f}.{exception}
- **The same learning rates, another result.** {pair[1]}'s step size is the length of the run, so it never
  steps: its {steps} rates are {pair[0]}'s, bit for bit. Yet it ends at {finals[pair[1]]:.2f} against {finals[pair[0]]:.2f}, and the article
  explains the difference by the schedule. {pair[1]} began at {middle:.2f}."""


def remaining(study: Study, facts: dict[str, Any]) -> str:
    """What the exceptions to the order are, and what follows."""
    names = list(study)
    rises = [names[k] for k in range(1, len(names)) if facts["final"][k] > facts["final"][k - 1]]
    ends = " and ".join(f"{name} (up to {max(study[name]['lrs'][-15:]):.1e})" for name in rises)
    flat = study["Step"]["losses"]
    return f"""\
Two arms end above their predecessor, {ends} in their last fifteen updates: they went
back to a high rate late. That is an effect of the schedule, on a model that the arms before have trained.

The stability score is 1 / (1 + std of the losses), so it punishes learning: Constant, the only arm that
learned from scratch, has the lowest, and an arm that started at {flat[0]:.2f} and learned {flat[0] - flat[-1]:.2f} nats scores
higher. It is kept in the record under its name, and never ranks.

Nothing here says which schedule is better. For that, every arm needs its own weights, its own optimizer and
the same batches, which is what a contest does; its record holds hashes of weights and batches."""


def fill(paragraph: str) -> str:
    """Prose and list items to lines of even length; tables, headings and figures as they are."""
    if paragraph.startswith(("|", "#", "!")):
        return paragraph
    items = paragraph.split("\n- ")
    texts = [items[0], *("- " + item for item in items[1:])]
    keep: dict[str, Any] = {"width": 105, "break_long_words": False, "break_on_hyphens": False}
    return "\n".join(
        textwrap.fill(
            " ".join(text.split()), subsequent_indent="  " * text.startswith("- "), **keep
        )
        for text in texts
    )


def number(value: float) -> str:
    """Four decimals."""
    return f"{value:.4f}"


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table; numbers to the right."""
    rule = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, rule, *rows])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path, nargs="?", default=RECORD)
    parser.add_argument("--figure", type=Path, help=f"also draw it here, as {FIGURE.name} was")
    options = parser.parse_args()
    study = json.loads(options.record.read_text())
    if options.figure:
        figure(study, options.figure)
    print(document(study), end="")


if __name__ == "__main__":
    main()
