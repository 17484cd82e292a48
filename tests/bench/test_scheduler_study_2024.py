"""The 2024 study: its printed table from its record, and a document that says what was computed."""

import json

import pytest

from bench.scheduler_study_2024 import (
    FIGURE,
    PRINTED,
    RECORD,
    differences,
    document,
    figure,
    order,
    same_rates,
    table,
)
from tests.jobs import SHARED


@pytest.fixture(scope="module")
def study():
    return json.loads(RECORD.read_text())


def test_every_cell_of_the_printed_table_is_reproduced_to_its_digits(study):
    assert {name: " ".join(row) for name, row in table(study).items()} == PRINTED


def test_a_cell_that_differs_is_named(study):
    rows = table(study)
    rows["Linear"][2] = "2.384965"
    assert differences(rows) == [
        "Linear, average gradient norm: printed 2.384964, here 2.384965"
    ]  # fmt: skip


def test_converged_step_is_also_the_one_that_the_study_recorded(study):
    recorded = [str(arm["converged_step"]) for arm in study.values()]
    assert [row[3].replace("never", "None") for row in table(study).values()] == recorded


def test_order_of_running_is_in_the_record(study):
    facts = order(study)
    # Spearman by its textbook formula, 1 - 6 sum d^2 / (n (n^2 - 1)); no ties
    ranks = sorted(range(10), key=lambda k: facts["final"][k])
    squares = sum((k - ranks.index(k)) ** 2 for k in range(10))
    assert facts["final_by_order"].statistic == pytest.approx(1 - 6 * squares / 990)
    assert facts["final_by_order"].statistic == pytest.approx(-0.915, abs=5e-4)
    assert same_rates(study) == [("Constant", "Step")]
    assert facts["first"][1:].max() < 6 < 10.8 < facts["first"][0]  # ln 50304 = 10.83


def test_the_document_is_what_the_program_prints(study):
    assert document(study) in (RECORD.parent / "schedulers.md").read_text()


def test_the_figure_is_what_the_program_draws(study, tmp_path):
    figure(study, tmp_path / FIGURE.name)
    drawn = (tmp_path / FIGURE.name).read_text()
    for name in ("Constant", "OneCycle", "Spearman -0.915"):
        assert name in drawn
        assert name in FIGURE.read_text()


def test_the_copy_is_the_record(study):
    original = SHARED / "reference" / "scheduler_study_2024.json"
    if not original.exists():
        pytest.skip(f"{original.name} of the shared material is not here")
    assert study == json.loads(original.read_text())
