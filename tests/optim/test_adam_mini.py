"""Adam-mini: its partition into blocks, against an oracle and its package."""

import pytest
import torch

from configs.validation import ConfigError
from optim import build_optimizer
from tests.optim import oracles, recorded
from tests.optim.recorded import ADAM

SHAPES = {
    "wte.weight": (10, 6),
    "wpe.weight": (5, 6),
    "h.0.attn.c_attn.weight": (18, 6),
    "h.0.attn.c_attn.bias": (18,),
    "h.0.attn.c_proj.weight": (6, 6),
    "h.0.mlp.c_fc.weight": (24, 6),
    "h.0.mlp.c_proj.weight": (6, 24),
    "h.0.ln_1.weight": (6,),
    "h.0.ln_1.bias": (6,),
}


def blocks_of(name, rows, value_blocks):
    """Of a model of width 6 with 2 heads of 3 rows; ln_1.bias goes with its layer norm."""
    if name.endswith("c_attn.weight"):
        heads, v = [list(range(3 * i, 3 * i + 3)) for i in range(4)], range(12, 18)
        return heads + ([[row] for row in v] if value_blocks == "row" else [list(v)])
    if "ln_" in name:
        return [list(range(rows))]
    return None if name.endswith("bias") else [[row] for row in range(rows)]


@pytest.mark.parametrize("value_blocks", ["row", "whole"])
def test_equals_its_oracle_on_every_kind_of_parameter(value_blocks):
    grads = recorded.gradients(SHAPES)
    expected = {}
    for key, p in recorded.start(SHAPES).items():
        blocks = blocks_of(key, len(p), value_blocks)
        rates = recorded.rates(1e-2)
        expected[key] = oracles.adam_mini(p.detach(), grads[key], rates, **ADAM, blocks=blocks)
    ours = recorded.ours("adam_mini", 1e-2, SHAPES, **ADAM, n_head=2, value_blocks=value_blocks)
    assert recorded.distance(ours, expected) < 1e-12


@pytest.mark.parametrize("value_blocks", ["row", "whole"])
def test_equals_its_package_on_split_projections(value_blocks):
    package = pytest.importorskip("adam_mini")
    grads, lrs = recorded.gradients(SHAPES), recorded.rates(1e-2)
    every = slice(None)
    parts = {  # their name: ours, and which rows
        "wq.weight": ("h.0.attn.c_attn.weight", slice(0, 6)),
        "wk.weight": ("h.0.attn.c_attn.weight", slice(6, 12)),
        "wv.weight": ("h.0.attn.c_attn.weight", slice(12, 18)),
        "wo.weight": ("h.0.attn.c_proj.weight", every),
        "wte.weight": ("wte.weight", every),
        "wpe_embd.weight": ("wpe.weight", every),
        "mlp.c_fc.weight": ("h.0.mlp.c_fc.weight", every),
        "mlp.c_proj.weight": ("h.0.mlp.c_proj.weight", every),
        "c_attn.bias": ("h.0.attn.c_attn.bias", every),
        "ln_1.weight": ("h.0.ln_1.weight", every),
    }
    begun = recorded.start(SHAPES)
    named = {
        theirs: torch.nn.Parameter(begun[key].detach()[rows].clone())
        for theirs, (key, rows) in parts.items()
    }
    optimizer = package.Adam_mini(
        named.items(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, dim=6, n_heads=2, verbose=False
    )
    if value_blocks == "whole":
        optimizer.wv_names = {}  # as the authors advise for short runs
    split = {theirs: [g[rows] for g in grads[key]] for theirs, (key, rows) in parts.items()}
    recorded.take(optimizer, named, split, lrs)
    values = {**ADAM, "weight_decay": 0.0, "n_head": 2, "value_blocks": value_blocks}
    mine = recorded.ours("adam_mini", 1e-2, SHAPES, **values)
    together = {theirs: mine[key][rows] for theirs, (key, rows) in parts.items()}
    assert recorded.distance(together, named) < 1e-10


def test_with_blocks_of_one_element_it_is_adamw():
    shapes = {"a.weight": (12, 1), "b.bias": (7,), "c.ln_1.weight": (1,)}
    expected = recorded.adamw(**ADAM, shapes=shapes)
    assert recorded.close(recorded.ours("adam_mini", 1e-2, shapes, **ADAM), expected)


def test_heads_that_do_not_fit_are_refused():
    p = torch.zeros(18, 6, requires_grad=True)
    group = {"params": [p], "names": ["attn.c_attn.weight"]}
    with pytest.raises(ConfigError, match=r"'attn.c_attn.weight' has 18 rows.* n_head = 4 heads"):
        build_optimizer("adam_mini", [group], n_head=4)
