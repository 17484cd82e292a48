"""Which updates were spikes, and the command for the text of the worst."""

from dataclasses import replace

import numpy as np

from record.metrics import StreamMetrics
from report.spikes import spikes
from tests.report.studies import a_run, a_study


def with_spikes(run, at):
    losses = 3 + 0.01 * np.random.default_rng(1).standard_normal(400)
    for step, height in at.items():
        losses[step] += height
    stream = StreamMetrics(400)
    scores = [stream.update(float(x), 1.0)["train/spike_score"] for x in losses]
    train = {"step": np.arange(400.0), "train/loss": losses, "train/spike_score": np.array(scores)}
    return replace(run, train=train)


def test_spikes_are_named_with_the_command_for_the_one_where_the_loss_rose_most():
    calm = with_spikes(a_run("adamw", 1, 3.0, source="runs/calm"), {})
    wild = with_spikes(a_run("adamw", 2, 3.0, source="runs/my run"), {200: 1.0, 290: 2.0, 350: 1.5})
    remote = with_spikes(a_run("sgd", 1, 3.0, source="wandb:a/b/c"), {200: 1.0})
    study = replace(a_study({"adamw": {}, "sgd": {}}), runs=[calm, wild, remote])
    (table,) = spikes(study).tables
    assert [[str(getattr(c, "text", c)) for c in row] for row in table.rows] == [
        ["adamw", "2", "3", "200, 290, 350", "python -m data show 'runs/my run' 290"],
        ["sgd", "1", "1", "200", "its folder is not here"],
    ]
    assert spikes(replace(study, runs=[calm])) is None
