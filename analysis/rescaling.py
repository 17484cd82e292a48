"""The same function with other weights: what a measure of sharpness should not see."""

from __future__ import annotations

import copy

import torch

from train_gpt2 import GPT


@torch.no_grad()
def rescaled(model: GPT, alpha: float) -> GPT:
    """A copy that computes the same logits, with weights scaled by `alpha` > 0 layer by layer.

    In every block: both LayerNorms (weight and bias) times alpha, and the linear maps behind them
    divided by it; the rows of V (with their biases) times alpha, and the projection behind the
    attention divided by it. Powers of two change no bit of the logits.

    Source: Dinh et al., "Sharp Minima Can Generalize For Deep Nets", arXiv:1703.04933
    (alpha-scaling of networks of ReLUs), for the pairs that a GPT-2 has.
    """
    scaled = copy.deepcopy(model)
    own, width = dict(scaled.named_parameters()), model.shape.n_embd
    for layer in range(model.shape.n_layer):
        for norm, linear in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
            own[f"h.{layer}.{norm}.weight"].mul_(alpha)
            own[f"h.{layer}.{norm}.bias"].mul_(alpha)
            own[f"h.{layer}.{linear}.weight"].div_(alpha)
        for kind in ("weight", "bias"):
            own[f"h.{layer}.attn.c_attn.{kind}"][2 * width :].mul_(alpha)
        own[f"h.{layer}.attn.c_proj.weight"].div_(alpha)
    return scaled
