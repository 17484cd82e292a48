"""The intervals whose coverage is published are those of the report."""

import numpy as np

from bench.text_coverage import SEQUENCES, covered, losses
from report.statistics import paired_t
from report.text import BLOCKS, text_part


def test_an_interval_that_is_counted_is_the_reports():
    x = losses(3, 40, 200, np.random.default_rng(7))
    assert x.shape == (200, 3, SEQUENCES)
    counted = covered(x, BLOCKS)
    for each, was in zip(x, counted, strict=True):
        test = paired_t(each.mean(axis=1))._replace(text=text_part(each))
        low, high = test.interval(0.05)
        assert (low <= 0 <= high) == was
    assert 0 < counted.sum() < len(counted)
