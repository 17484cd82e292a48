"""The project's own optimizers, 12 steps of recorded gradients in float64: against the oracles
of oracles.py, written from the papers, and against published packages."""

import pytest
import torch

from optim import build_optimizer
from tests.optim import oracles

# Rows and columns both ways, a vector and a single element.
SHAPES = {"wte.weight": (12, 8), "h.0.mlp.c_fc.weight": (8, 12), "ln_f.weight": (8,), "x": (1,)}
STEPS = 12
ADAM = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
SIGN = {"betas": (0.9, 0.99), "weight_decay": 0.1}


def start(shapes=SHAPES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    values = {key: torch.randn(s, generator=generator, dtype=dtype) for key, s in shapes.items()}
    return {key: torch.nn.Parameter(0.3 * value) for key, value in values.items()}


def gradients(shapes=SHAPES, steps=STEPS, dtype=torch.float64):
    """Of any size from 0.01 to 3, so that clipping and norms above and below 1 occur."""
    generator = torch.Generator().manual_seed(8)
    made = {}
    for i, (key, shape) in enumerate(shapes.items()):
        sizes = [10 ** (-2 + 2.5 * ((i + step) % 5) / 4) for step in range(steps)]
        made[key] = [s * torch.randn(shape, generator=generator, dtype=dtype) for s in sizes]
    return made


def rates(lr, steps=STEPS):
    """A schedule, so that every step has its own."""
    return [lr * (1 - 0.05 * step) for step in range(steps)]


def take(optimizer, named, grads, lrs):
    for step, lr in enumerate(lrs):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for key, p in named.items():
            p.grad = grads[key][step].clone()
        optimizer.step()
    return named


def distance(ours, theirs):
    """Largest difference, relative to the largest value."""
    return max(((ours[k] - theirs[k]).abs().max() / theirs[k].abs().max()).item() for k in ours)


def ours(name, lr, shapes=SHAPES, **hyperparameters):
    named = start(shapes)
    group = {"params": list(named.values()), "names": list(named)}
    optimizer = build_optimizer(name, [group], lr=lr, **hyperparameters)
    return take(optimizer, named, gradients(shapes), rates(lr))


CASES = [
    ("nadamw", 1e-2, ADAM),
    ("adopt", 1e-2, {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.1}),
    ("adopt", 1e-2, {"betas": (0.9, 0.5), "eps": 0.1, "weight_decay": 0.0}),
    ("ademamix", 1e-2, {**ADAM, "betas": (0.9, 0.95, 0.999), "alpha": 8.0, "warmup_steps": 7}),
    ("ademamix", 1e-2, {**ADAM, "betas": (0.9, 0.95, 0.99), "alpha": 5.0, "warmup_steps": 0}),
    (
        "mars",
        1e-2,
        {
            "betas": (0.95, 0.99),
            "gamma": 0.025,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "vector_lr_ratio": 0.5,
            "vector_betas": (0.9, 0.95),
        },
    ),
    ("cautious_adamw", 1e-2, ADAM),
    ("lion", 1e-2, SIGN),
    ("cautious_lion", 1e-2, SIGN),
    ("signum", 1e-2, {"momentum": 0.9, "nesterov": False, "weight_decay": 0.1}),
    ("signum", 1e-2, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("signum", 1e-2, {"momentum": 0.0, "nesterov": False, "weight_decay": 0.1}),
    ("lamb", 1e-2, ADAM),
    ("lamb", 1e-2, {**ADAM, "eps": 1e-6, "bias_correction": False, "max_weight_norm": 1.0,
                    "ratio_eps": 1e-6, "adapt_vectors": True}),
    ("lamb", 1e-2, {**ADAM, "weight_decay": 0.0}),
    ("lars", 1.0, {"momentum": 0.9, "trust": 1e-3, "weight_decay": 0.1}),
    ("lars", 1.0, {"momentum": 0.0, "trust": 1e-2, "weight_decay": 0.0}),
    ("sgd_sai", 1e-2, {"momentum": 0.9, "eps": 1e-8, "weight_decay": 0.1}),
    ("sgd_sai", 1e-2, {"momentum": 0.0, "eps": 1e-8, "weight_decay": 0.0}),
    ("sgd_sqrtn", 1e-2, {"momentum": 0.9, "weight_decay": 0.1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lr", "hyperparameters"), CASES)
def test_equals_its_oracle(name, lr, hyperparameters):
    grads = gradients()
    expected = {
        key: getattr(oracles, name)(p.detach(), grads[key], rates(lr), **hyperparameters)
        for key, p in start().items()
    }
    assert distance(ours(name, lr, **hyperparameters), expected) < 1e-12


@pytest.mark.parametrize("name", ["sgd_sai", "sgd_sqrtn"])
def test_normalised_scales_are_divided_by_the_largest(name):
    hyperparameters = {"momentum": 0.9, "weight_decay": 0.1}
    if name == "sgd_sai":
        hyperparameters["eps"] = 1e-8
    grads = gradients()
    sai = [oracles.g_snr(g[0], 1e-8) for g in grads.values()]
    largest = max(sai) if name == "sgd_sai" else 96**0.5
    expected = {
        key: getattr(oracles, name)(
            p.detach(), grads[key], rates(1.0), **hyperparameters, largest=largest
        )
        for key, p in start().items()
    }
    assert distance(ours(name, 1.0, **hyperparameters, normalise=True), expected) < 1e-12


# ---------------------------------------------------------------- Adam-mini's partition

MINI = {
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


def mini_blocks(name, rows):
    """Of a model of width 6 with 2 heads of 3 rows; ln_1.bias goes with its layer norm."""
    if name.endswith("c_attn.weight"):
        heads = [list(range(3 * i, 3 * i + 3)) for i in range(4)]
        return heads + [[row] for row in range(12, 18)]
    if "ln_" in name:
        return [list(range(rows))]
    return None if name.endswith("bias") else [[row] for row in range(rows)]


def test_adam_mini_equals_its_oracle_on_every_kind_of_parameter():
    grads = gradients(MINI)
    expected = {
        key: oracles.adam_mini(
            p.detach(), grads[key], rates(1e-2), **ADAM, blocks=mini_blocks(key, len(p))
        )
        for key, p in start(MINI).items()
    }
    assert distance(ours("adam_mini", 1e-2, MINI, **ADAM, n_head=2), expected) < 1e-12


# ---------------------------------------------------------------- published packages


def published(make, lr, shapes=SHAPES, leave_out=()):
    """The same replay through `make(named, lr)`, without the parameters in `leave_out`."""
    named = {k: p for k, p in start(shapes).items() if k not in leave_out}
    return take(make(named, lr), named, gradients(shapes), rates(lr))


def compare(name, make, lr=1e-2, leave_out=(), tolerance=1e-10, **hyperparameters):
    theirs = published(make, lr, leave_out=leave_out)
    mine = ours(name, lr, **hyperparameters)
    assert distance({key: mine[key] for key in theirs}, theirs) < tolerance


def test_sgd_sai_equals_its_package():
    package = pytest.importorskip("sgd_sai")
    values = {"momentum": 0.9, "eps": 1e-8, "weight_decay": 0.1}

    def make(named, lr):
        return package.SGD_sai(list(named.values()), lr=lr, **values)

    compare("sgd_sai", make, leave_out=("x",), **values)  # one element: the package's k is absurd


def test_lion_and_cautious_lion():
    package = pytest.importorskip("lion_pytorch")
    compare("lion", lambda named, lr: package.Lion(named.values(), lr=lr, **SIGN), **SIGN)


def test_adam_mini_equals_its_package_on_split_projections():
    package = pytest.importorskip("adam_mini")
    grads, lrs = gradients(MINI), rates(1e-2)
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
    begun = start(MINI)
    named = {
        theirs: torch.nn.Parameter(begun[key].detach()[rows].clone())
        for theirs, (key, rows) in parts.items()
    }
    optimizer = package.Adam_mini(
        named.items(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, dim=6, n_heads=2, verbose=False
    )
    split = {theirs: [g[rows] for g in grads[key]] for theirs, (key, rows) in parts.items()}
    take(optimizer, named, split, lrs)
    mine = ours("adam_mini", 1e-2, MINI, **{**ADAM, "weight_decay": 0.0}, n_head=2)
    together = {theirs: mine[key][rows] for theirs, (key, rows) in parts.items()}
    assert distance(together, named) < 1e-10


def kozistr(cls, **hyperparameters):
    """A class of pytorch_optimizer, with its loop over tensors."""
    package = pytest.importorskip("pytorch_optimizer")

    def make(named, lr):
        params = list(named.values())
        return getattr(package, cls)(params, lr=lr, foreach=False, **hyperparameters)

    return make


def test_adopt_equals_pytorch_optimizer():
    """Unlike the authors, it decays in the first step and counts it in the clipping's bound."""
    values = {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0}
    compare("adopt", kozistr("ADOPT", **values, clip_lambda=lambda t: (t - 1) ** 0.25), **values)


def test_ademamix_equals_pytorch_optimizer():
    values = {**ADAM, "betas": (0.9, 0.95, 0.999), "alpha": 8.0}
    theirs = kozistr("AdEMAMix", **values, weight_decouple=True, t_alpha_beta3=7)
    compare("ademamix", theirs, **values, warmup_steps=7)


def test_mars_equals_pytorch_optimizer():
    """It adds eps before the bias correction, so eps is next to nothing here, and 1e-15 to v."""
    values = {"betas": (0.95, 0.99), "gamma": 0.025, "eps": 1e-30, "weight_decay": 0.1}
    theirs = kozistr("MARS", **values, lr_1d=0.5e-2, betas_1d=(0.9, 0.95), weight_decay_1d=0.1)
    compare("mars", theirs, tolerance=1e-6, **values, vector_lr_ratio=0.5)


def test_lars_equals_pytorch_optimizer():
    values = {"momentum": 0.9, "weight_decay": 0.1}
    theirs = kozistr("LARS", **values, trust_coefficient=1e-3, dampening=0.0)
    compare("lars", theirs, lr=1.0, **values, trust=1e-3)


def test_signum_equals_pytorch_optimizer():
    values = {"momentum": 0.9, "weight_decay": 0.1}
    compare("signum", kozistr("SignSGD", **values), **values)


def test_lamb_as_in_the_seed_equals_pytorch_optimizer():
    """Told not to correct any bias, it is the LAMB that the preset lamb_seed describes."""
    values = {"betas": (0.9, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    theirs = kozistr("Lamb", **values, weight_decouple=False, adam_debias=True)
    mine = {"bias_correction": False, "max_weight_norm": 10.0, "adapt_vectors": True}
    compare("lamb", theirs, **values, **mine, ratio_eps=1e-6)
