"""Does a step, or zero_grad, take SGD less time than Adam? With an interval and a p value.

    python -m bench.sgd_against_adam [--size small] [--samples 400] [--out sgd_against_adam.png]

The study that this project began from timed `optimizer.zero_grad` of SGD and of Adam on a GPT of
one layer, 32 times each, and concluded from the sign of a difference. Here both are timed in turn,
in the same process and on equal models, each call from an idle device to an idle device, and also
`step`, where they differ. zero_grad is timed a second time, after equal work for both that clears
the cache of the step: a difference that is gone then came from the step, not from zero_grad.
Neighbouring samples are correlated, so whole blocks are resampled: the intervals are those of a
circular block bootstrap of the means, with 1000 resamples, and the p value is that of a permutation
test that swaps SGD and Adam within blocks.

The figure has, for each of them: a box plot, the bootstrap's distribution of both means,
and a histogram of the differences between neighbours in time, SGD less Adam.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats

import train_gpt2
from bench.optimizer_step import clocked, machine
from configs import Model
from optim import build_optimizer

SIZES = {  # vocabulary, context, layers, heads, width
    "small": (256, 64, 1, 4, 128),  # one layer, as in that study
    "124M": (50257, 1024, 12, 12, 768),
}
ARMS = {"SGD": "sgd", "Adam": "adam"}
CALLS = ("zero_grad", "zero_grad, cache cleared", "step")
CLEARED = 1 << 24  # elements, 64 MiB: more than the caches hold
RESAMPLES = 1000


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small", help="of the GPT")
    parser.add_argument("--samples", type=int, default=400, help="of each call and optimizer")
    parser.add_argument("--warm-up", type=int, default=20, help="rounds that are not counted")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="the figure")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="every sample")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    times = measured(options.size, options.samples, options.warm_up, device)
    results = {call: compared(times[call]) for call in CALLS}
    for call, result in results.items():
        print(line(call, result))
    if options.json:
        record = {"command": " ".join(sys.argv), "machine": machine(device), "size": options.size}
        lists = {call: {arm: x.tolist() for arm, x in times[call].items()} for call in CALLS}
        options.json.write_text(json.dumps(record | {"seconds": lists}, indent=1) + "\n")
    if options.out:
        draw(times, results, options.out)
    return 0


def measured(
    size: str, samples: int, warm_up: int, device: torch.device
) -> dict[str, dict[str, np.ndarray]]:
    """Seconds by call and optimizer, taken in turn; the order alternates from round to round."""
    vocabulary, context, layers, heads, width = SIZES[size]
    shape = Model(
        vocab_size=vocabulary, block_size=context, n_layer=layers, n_head=heads, n_embd=width
    )
    optimizers = {}
    for arm, name in ARMS.items():
        model = train_gpt2.GPT.initialised(shape, seed=1).to(device)
        optimizers[arm] = build_optimizer(name, model.parameter_groups(), lr=1e-9)
        optimizers[arm].check_gradients = False  # as in the training loop
    params = {
        arm: [p for group in optimizer.param_groups for p in group["params"]]
        for arm, optimizer in optimizers.items()
    }
    # Gradients are put back by hand, so that no backward pass is measured or heats the machine.
    grads = {arm: [torch.full_like(p, 1e-3) for p in params[arm]] for arm in ARMS}
    seconds: dict[str, dict[str, list[float]]] = {call: {arm: [] for arm in ARMS} for call in CALLS}
    scratch = torch.zeros(CLEARED, device=device)
    for i in range(warm_up + samples):
        for arm in list(ARMS)[:: 1 if i % 2 else -1]:
            put_back(params[arm], grads[arm])
            # step, then zero_grad, as a training loop has them
            seconds["step"][arm].append(clocked(optimizers[arm].step, device))
            seconds["zero_grad"][arm].append(clocked(optimizers[arm].zero_grad, device))
            put_back(params[arm], grads[arm])
            scratch.add_(1.0)
            cleared = clocked(optimizers[arm].zero_grad, device)
            seconds["zero_grad, cache cleared"][arm].append(cleared)
    return {
        call: {arm: np.array(values[warm_up:]) for arm, values in arms.items()}
        for call, arms in seconds.items()
    }


def put_back(params: list[torch.nn.Parameter], grads: list[torch.Tensor]) -> None:
    """Set the gradients again that zero_grad has removed."""
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad


# ---------------------------------------------------------------- statistics


def compared(times: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means of both, their difference with its 95 % interval and p value, in seconds."""
    sgd, adam = times["SGD"], times["Adam"]
    length = block_length(sgd - adam)
    generator = np.random.default_rng(0)
    means = {arm: bootstrap_means(values, length, generator) for arm, values in times.items()}
    differences = bootstrap_means(sgd - adam, length, generator)
    blocks = [block.mean() for block in np.array_split(sgd - adam, max(2, len(sgd) // length))]
    test = stats.permutation_test(
        (np.array(blocks), np.zeros(len(blocks))),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",  # swaps the two within a block
        n_resamples=9999,
        rng=generator,
    )
    return {
        "means": means,
        "block": length,
        "mean": {arm: values.mean() for arm, values in times.items()},
        "median": {arm: float(np.median(values)) for arm, values in times.items()},
        "difference": (sgd - adam).mean(),
        "interval": np.percentile(differences, [2.5, 97.5]),
        "p": test.pvalue,
        "autocorrelation": autocorrelation(sgd - adam, 1),
    }


def block_length(x: np.ndarray) -> int:
    """Samples in a block: until the autocorrelation is within its noise, at least n^(1/3)."""
    noise = 2 / np.sqrt(len(x))
    least, most = round(len(x) ** (1 / 3)), max(1, len(x) // 8)
    lag = next((k for k in range(1, most) if abs(autocorrelation(x, k)) < noise), most)
    return int(np.clip(2 * lag, least, most))


def autocorrelation(x: np.ndarray, lag: int) -> float:
    """Of samples `lag` apart."""
    centred = x - x.mean()
    return float((centred[lag:] * centred[:-lag]).sum() / max((centred**2).sum(), 1e-300))


def bootstrap_means(x: np.ndarray, length: int, generator: np.random.Generator) -> np.ndarray:
    """Means of resamples made of blocks of neighbours; the last sample's neighbour is the first."""
    blocks = -(-len(x) // length)
    starts = generator.integers(len(x), size=(RESAMPLES, blocks, 1))
    indices = (starts + np.arange(length)) % len(x)
    return x[indices.reshape(RESAMPLES, -1)[:, : len(x)]].mean(1)


def line(call: str, result: dict[str, Any]) -> str:
    """One result in words."""
    mean, median, (low, high) = result["mean"], result["median"], 1e6 * result["interval"]
    return (
        f"{call:<25} SGD mean {1e6 * mean['SGD']:.2f} us (median {1e6 * median['SGD']:.2f}), Adam"
        f" {1e6 * mean['Adam']:.2f} us ({1e6 * median['Adam']:.2f}); difference"
        f" {1e6 * result['difference']:+.2f} us, 95 % interval [{low:+.2f}, {high:+.2f}], p ="
        f" {result['p']:.4f}; lag-1 autocorrelation {result['autocorrelation']:+.2f}, blocks of"
        f" {result['block']}"
    )


# ---------------------------------------------------------------- the figure


def draw(times: dict[str, Any], results: dict[str, Any], out: Path) -> None:
    """A row for each call: box plot, means of the resamples, differences."""
    figure = Figure(figsize=(10, 2.8 * len(results)), layout="constrained")
    for (call, result), row in zip(results.items(), figure.subplots(len(results), 3), strict=True):
        boxes, means, differences = row
        samples = {arm: 1e6 * values for arm, values in times[call].items()}
        boxes.boxplot(list(samples.values()), tick_labels=list(samples), showfliers=False)
        boxes.set(title=f"{call}: samples", ylabel="us")
        for arm, values in result["means"].items():
            means.hist(1e6 * values, bins=30, alpha=0.6, label=arm)
        means.set(title="means of 1000 block resamples", xlabel="us")
        means.legend(fontsize=8, frameon=False)
        gaps = samples["SGD"] - samples["Adam"]
        low, high = np.percentile(gaps, [5, 95])
        differences.hist(gaps, bins=40, range=(low, high), color="C2", alpha=0.7)
        differences.axvline(0, color="black", linewidth=0.8)
        differences.axvline(1e6 * result["difference"], color="C3", linewidth=1.2)
        differences.axvspan(*(1e6 * result["interval"]), color="C3", alpha=0.25)
        differences.set(title=f"SGD - Adam, p = {result['p']:.4f}", xlabel="us (5th to 95th %)")
    for axis in figure.axes:
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    sys.exit(main())
