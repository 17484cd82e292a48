"""Rules by width: the power of the width that lr follows under muP, by role of parameters.

A rule keeps the change of every activation the same while a model grows wider (configs/shape.py
has what else muP changes). Each optimizer has its own, `Optimizer.width_rule`, because it follows
from how far a step moves a tensor; docs/optimizers.md (Width) derives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Powers = Mapping[str, float]  # by role of parameters

# Each element moves by lr, whatever the gradient's size: arXiv:2203.03466, table 8, "Adam".
ELEMENTWISE: Powers = {"hidden": -1.0, "embedding": 0.0, "vector": 0.0}
# The gradient itself, of 1 / width in every tensor: table 8, "SGD".
GRADIENT: Powers = {"hidden": 0.0, "embedding": 1.0, "vector": 1.0}
# A matrix moves by lr in the spectral norm (arXiv:2310.17813); AdamW for the rest.
SPECTRAL: Powers = {"hidden": 0.0, "embedding": 0.0, "vector": 0.0}
# Each element of a matrix moves by lr in the root mean square, all singular values alike, so that
# the spectral norm grows as the square root of the width; AdamW for the rest.
ORTHOGONAL_RMS: Powers = {"hidden": -0.5, "embedding": 0.0, "vector": 0.0}


class CoupledDecay:
    """For elementwise rules whose decay is a part of the gradient, which has another size."""

    @classmethod
    def width_rule(cls, h: Mapping[str, Any]) -> Powers | None:
        """None with such a decay: its share of a step would change with the width."""
        coupled = h["weight_decay"] and not h.get("decoupled_weight_decay")
        return None if coupled else ELEMENTWISE
