"""GaLore: Adam on a projection of the gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from optim.core.batch import Batch, Params, Values
from optim.core.hyperparameters import Betas, Count, NonNegative
from optim.core.matrix import MatmulDtype, MatrixRule, add_product_, bias_correction


class GaLore(MatrixRule):
    """Adam in the space of the largest singular vectors of a recent gradient.

    Source: Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
    arXiv:2403.03507, Algorithm 2; order and eps of the authors' code (jiaweizzhao/GaLore).

        every update_gap steps, from the first:  U S V^T = g;  P = the first `rank` columns of
            V (m >= n), or of U (m < n)
        r = g P  (m >= n),  or  P^T g  (m < n)
        m <- beta1 * m + (1 - beta1) * r,   v <- beta2 * v + (1 - beta2) * r^2
        u = sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)
        p <- p - lr * scale * (u P^T,  or  P u)
        p <- p * (1 - lr * weight_decay)

    Other parameters (embeddings, head, vectors): AdamW with betas, eps and weight_decay.
    `split_qkv` as in muon.
    Differs: for matrices, nothing. For the other parameters the authors' AdamW also has eps outside
    the bias correction and decays last; here it does not. Neither rotates m and v when P changes.
    Tuning: it saves state, not time. The step of a matrix is `scale` times Adam's, so lr is 4 to 10
    times AdamW's. The other parameters take all of that lr, as in the authors' code. One step in
    update_gap needs singular value decompositions, which take seconds for a large model.
    State: with r = min(rank, m, n): exp_avg, exp_avg_sq of r max(m, n), and P of r min(m, n)
    numbers in at least float32; 8 bytes per parameter of the others (4.8 for GPT-2 124M, rank 256).
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: NonNegative = 1e-2,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-6,
        weight_decay: NonNegative = 0.0,
        rank: Count = 128,
        update_gap: Count = 200,
        scale: NonNegative = 0.25,
        split_qkv: bool = True,
        matmul_dtype: MatmulDtype = "tf32",
    ) -> None:
        super().__init__(params, locals())

    def matrix_state(self, p: Tensor, h: Values) -> dict[str, Tensor]:
        """The projection P and both moments in its space."""
        m, n = p.shape
        r, dtype = min(h["rank"], m, n), torch.promote_types(p.dtype, torch.float32)
        low = torch.zeros((m, r) if m >= n else (r, n), dtype=dtype, device=p.device)
        projection = torch.zeros(min(m, n), r, dtype=dtype, device=p.device)
        return {"projection": projection, "exp_avg": low, "exp_avg_sq": low.clone()}

    def matrix_step(self, batch: Batch, c: Values) -> None:
        h, (beta1, beta2) = batch.h, batch.h["betas"]
        step_size = c["lr"] * h["scale"] * bias_correction(h["betas"], batch.step)
        decay = c["decay"]
        for p, g, state in batch.stacks():
            projection, m, v = state["projection"], state["exp_avg"], state["exp_avg_sq"]
            g, tall = g.to(m.dtype), p.size(-2) >= p.size(-1)
            if (batch.step - 1) % h["update_gap"] == 0:
                u, _, vh = torch.linalg.svd(g, full_matrices=False)
                projection.copy_((vh.mT if tall else u)[..., : projection.size(-1)])
            low = g @ projection if tall else projection.mT @ g
            m.lerp_(low, 1 - beta1)
            v.mul_(beta2).addcmul_(low, low, value=1 - beta2)
            u = m / (v.sqrt() + h["eps"])
            factors = (u, projection.mT) if tall else (projection, u)
            add_product_(p, *factors, left=decay, factor=-step_size * decay)
