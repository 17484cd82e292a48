"""The figure of sharpness over loss, a path for each run."""

from dataclasses import replace

import pytest

from bench.large_batch import figure
from report.batches import NAMES
from report.run import ReportError
from tests.report.studies import measured, only_loss, two_batches


def test_the_figure_has_a_column_for_each_optimizer_and_a_colour_for_each_batch(tmp_path):
    plain = two_batches()
    paths = {1: (measured(10), measured(20)), 2: (measured(20), only_loss(20, 2.0))}
    runs = [replace(run, sharpness=paths.get(run.seed, ())) for run in plain.runs]
    figure(replace(plain, runs=runs), tmp_path / "out.svg")
    drawn = (tmp_path / "out.svg").read_text()
    for words in ("adamw", "sgd", *NAMES.values()):
        assert drawn.count(f">{words}</text>") == 1, words
    for kind in ("512 tokens, 80 updates", "2,048 tokens, 20 updates", "2,048 tokens, 80 updates"):
        assert drawn.count(f">{kind}</text>") == 1, kind

    with pytest.raises(ReportError, match="no sharpness was measured"):
        figure(plain, tmp_path / "out.svg")
