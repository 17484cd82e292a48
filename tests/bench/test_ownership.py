"""bench.ownership: the figures of docs/scaling.md."""

import pytest

from bench.ownership import counted_row
from tests.jobs import ROOT


@pytest.mark.parametrize(("name", "ranks"), [("adamw", 2), ("muon", 1)])
def test_rows_in_the_document_are_what_the_program_counts(name, ranks):
    assert f"| {' | '.join(counted_row(name, ranks))} |" in (ROOT / "docs/scaling.md").read_text()
