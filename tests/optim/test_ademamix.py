"""AdEMAMix against an oracle, a package and AdamW, and its warm-up."""

import math
import re

import pytest
import torch

from configs.validation import ConfigError
from optim import build_optimizer, resolve_optimizer
from optim.ademamix import AdEMAMix
from tests.optim import recorded
from tests.optim.recorded import ADAM


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"betas": (0.9, 0.95, 0.999), "alpha": 8.0, "warmup_steps": 7},
        {"betas": (0.9, 0.95, 0.99), "alpha": 5.0, "warmup_steps": 0},
    ],
)
def test_equals_its_oracle(hyperparameters):
    recorded.assert_equals_oracle("ademamix", 1e-2, **{**ADAM, **hyperparameters})


def test_equals_pytorch_optimizer():
    values = {**ADAM, "betas": (0.9, 0.95, 0.999), "alpha": 8.0}
    options = {"weight_decouple": True, "t_alpha_beta3": 7}
    theirs = recorded.pytorch_optimizer("AdEMAMix", **values, **options)
    recorded.assert_equals_package("ademamix", theirs, **values, warmup_steps=7)


def test_without_its_slow_average_it_is_adamw():
    ours = recorded.ours("ademamix", 1e-2, alpha=0.0, weight_decay=0.1, warmup_steps=0)
    assert recorded.close(ours, recorded.adamw())


def test_it_warms_up_to_its_full_betas():
    optimizer = build_optimizer("ademamix", [torch.zeros(1)], warmup_steps=100)
    h = resolve_optimizer("ademamix", {"warmup_steps": 100})
    values = [optimizer.coefficients(h, step) for step in (1, 50, 100, 200)]
    assert [value["alpha"] for value in values] == pytest.approx([0.05, 2.5, 5.0, 5.0])
    half_life = [math.log(0.5) / math.log(value["slow"]) for value in values]
    ends = [math.log(0.5) / math.log(beta) for beta in (0.9, 0.9999)]
    assert half_life[2:] == pytest.approx([ends[1]] * 2)
    assert half_life[1] == pytest.approx(sum(ends) / 2), "the half-life grows linearly"


def test_a_warmup_is_a_part_of_the_run_or_a_number_of_updates():
    def warmup(total_steps=None, **hyperparameters):
        groups = [torch.zeros(1)]
        optimizer = build_optimizer("ademamix", groups, total_steps=total_steps, **hyperparameters)
        return optimizer.param_groups[0]["warmup_steps"]

    assert warmup(4768) == 4768, "by default, the whole run"
    assert warmup(100, warmup_steps=0.07) == 7
    assert warmup(100, warmup_steps=100) == warmup(warmup_steps=100) == 100


@pytest.mark.parametrize(
    ("total_steps", "warmup_steps", "message"),
    [
        (
            4768,
            19073,
            "warmup_steps = 19073 is longer than the run of 4768 updates; give fewer, or",
        ),
        (None, 1.0, "warmup_steps = 1.0 is a fraction of the run, whose length is not known; give"),
        (100, 1.5, "warmup_steps = 1.5: a float is a fraction of the run, from 0.0 to 1.0; a numb"),
        (100, -1, "warmup_steps = -1: a number of steps should be 0 or more"),
    ],
)
def test_a_warmup_that_does_not_fit_the_run_is_refused(total_steps, warmup_steps, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        build_optimizer(
            "ademamix", [torch.zeros(1)], total_steps=total_steps, warmup_steps=warmup_steps
        )
    assert "\n" not in str(caught.value)


def test_the_class_alone_refuses_a_fraction():
    with pytest.raises(ConfigError, match="give build_optimizer total_steps, or warmup_steps as"):
        AdEMAMix([torch.zeros(1)])
    groups = [{"params": [torch.zeros(1)], "warmup_steps": 0.5}]
    with pytest.raises(ConfigError, match="is a fraction of the run"):
        AdEMAMix(groups, warmup_steps=3)


def test_a_slow_average_faster_than_the_first_is_refused():
    with pytest.raises(ConfigError, match="slow one should not be below the first") as caught:
        build_optimizer("ademamix", [torch.zeros(2)], warmup_steps=0, betas=(0.9, 0.999, 0.5))
    assert "\n" not in str(caught.value)
