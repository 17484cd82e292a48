"""Tables of the large-batch study: which arms are compared, and with which numbers."""

from dataclasses import replace

import pytest

from bench.large_batch import NAMES, against_smaller, by_batch, figure, overview
from tests.report.studies import a_run, a_study, measured, only_loss

TOKENS = 512 * 80


def study():
    """Two optimizers at batches of 512 and 2,048, equal tokens; sgd-long: the updates of sgd-x1."""
    runs, offsets = [], {"adamw-x1": 0.0, "adamw-x4": 0.1, "sgd-x1": 0.3, "sgd-x4": 0.9}
    for arm, offset in (offsets | {"sgd-long": -0.2}).items():
        size = 512 if arm.endswith("x1") else 2048
        steps = 80 if arm == "sgd-long" else TOKENS // size
        for seed in (1, 2, 3):
            run = a_run(arm, seed, 3.0, steps=steps)
            tables = {"optimizer": {"name": arm.partition("-")[0], "lr": 1e-3}}
            tables["train"] = run.config["train"] | {"batch_tokens": size}
            test = 2 + offset + seed / 100 + offset * seed / 1000
            ends = {"final_test_loss": test, "train_test_gap": 0.1 + offset * seed / 10}
            ends |= {"tokens": size * steps, "steps": steps}
            runs.append(replace(run, config=run.config | tables, summary=run.summary | ends))
    declared = {run.arm: ("train.total_steps", "train.batch_tokens") for run in runs}
    arms = list(dict.fromkeys(run.arm for run in runs))
    against = {"sgd-x4": "adamw-x4"}
    return replace(
        a_study({"adamw-x1": {}}), runs=runs, arms=arms, declared=declared, against=against
    )


def test_a_larger_batch_is_compared_with_as_many_tokens_else_as_many_updates():
    assert against_smaller(study()).against == {
        "adamw-x4": "adamw-x1",
        "sgd-x4": "sgd-x1",
        "sgd-long": "sgd-x1",
    }


def cells(table):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def test_tables_have_the_differences_and_verdicts():
    found = cells(by_batch(study()))
    assert found["adamw-x4 less adamw-x1"]["test loss"].split()[0] == "+0.1002"
    assert found["adamw-x4 less adamw-x1"]["test loss"].endswith("worse")
    assert found["sgd-long less sgd-x1"]["test loss"].endswith("better")
    assert found["sgd-x4 less sgd-x1"]["test loss - train loss"].split()[0] == "+0.1200"
    assert found["sgd-x4 less sgd-x1"]["Keskar's sharpness, %"] == "–"  # nothing was measured

    rivals = cells(overview(study()))
    assert rivals["adamw-x1"]["verdict"] == "baseline"
    assert rivals["sgd-x4"]["against"] == "adamw-x4"
    assert float(rivals["sgd-x4"]["difference"].split()[0]) == pytest.approx(0.8, abs=0.01)
    assert (rivals["sgd-x4"]["batch"], rivals["sgd-x4"]["updates"]) == ("2,048", "20")


def test_the_figure_has_a_column_for_each_optimizer_and_a_colour_for_each_batch(tmp_path):
    plain = study()
    paths = {1: (measured(10), measured(20)), 2: (measured(20), only_loss(20, 2.0))}
    runs = [replace(run, sharpness=paths.get(run.seed, ())) for run in plain.runs]
    figure(replace(plain, runs=runs), tmp_path / "out.svg")
    drawn = (tmp_path / "out.svg").read_text()
    for words in ("adamw", "sgd", *NAMES.values()):
        assert drawn.count(f">{words}</text>") == 1, words
    for kind in ("512 tokens, 80 updates", "2,048 tokens, 20 updates", "2,048 tokens, 80 updates"):
        assert drawn.count(f">{kind}</text>") == 1, kind
