"""The program that calibrates the test of crossed seeds uses the test of the report."""

import pytest

from bench.crossed import draw, p_values
from report.crossed import two_way_t


def test_rule_of_the_program_is_that_of_the_report():
    x = draw((3, 4), (1.0, 0.5, 0.7), 20)
    assert p_values(x)["report"] == pytest.approx([two_way_t(table).p for table in x])


def test_only_the_report_holds_its_level_in_a_table_of_five_by_two():
    found = {
        rule: (p < 0.05).mean() for rule, p in p_values(draw((5, 2), (0.3, 1, 0.1), 4000)).items()
    }
    assert found["report"] < 0.05
    assert min(found[rule] for rule in found if rule != "report") > 0.07
