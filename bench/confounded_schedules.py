"""What a contest claims if its arms share one model: the mistake of a 2024 study, on purpose.

    python -m bench.confounded_schedules configs/contest/schedules_small.toml --json FILE

Builds model and optimizer once, as that study did, and trains the arms of a contest file one
after the other on them, in the order of the file and then, afresh, in the reverse order. All other
settings are those of the contest: schedule, updates, batch, validation tokens, first seed, and the
peak rate before tuning. A fair contest gives an arm the same loss at every position. Prints the two
orders side by side, and Spearman's correlation of final validation loss with position.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

import optim
import train_gpt2
from configs import Batch, Config, load
from contest import file as contests
from data import HeldOut, Loader, Tokens, open_split
from launch.process import Process


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contest", type=Path, metavar="CONTEST.toml")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers")
    options = parser.parse_args(arguments)
    contest = contests.read(options.contest)
    words = {arm.name: contest.arguments(arm, contest.seeds(arm)[0]) for arm in contest.arms}
    configs = {arm: optim.resolve(load(arguments)) for arm, arguments in words.items()}
    orders = {"file": list(configs), "reverse": list(reversed(configs))}
    with ProcessPoolExecutor(len(orders)) as pool:
        each = pool.map(sequence, [{name: configs[name] for name in o} for o in orders.values()])
        found: dict[str, Any] = dict(zip(orders, each, strict=True))
    for order, names in orders.items():
        rho = spearmanr(range(len(names)), [row["final"] for row in found[order].values()])
        found[f"spearman of the {order} order"] = float(rho.statistic)
    table(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def sequence(configs: dict[str, Config]) -> dict[str, dict[str, float]]:
    """Validation loss, nats per token, before and after each arm, all on one model."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    first = next(iter(configs.values()))
    model = train_gpt2.GPT.initialised(first.model, first.seed)
    optimizer = optim.optimizer_of(first, model.parameter_groups())
    losses = {}
    for position, (name, config) in enumerate(configs.items(), 1):
        start = validate(model, config)
        train(model, optimizer, config)
        losses[name] = {"position": position, "start": start, "final": validate(model, config)}
        print(f"{position:3} {name:<22}{start:8.4f} -> {losses[name]['final']:.4f}", flush=True)
    return losses


def train(model: train_gpt2.GPT, optimizer: optim.Optimizer, config: Config) -> None:
    """The loop of train_gpt2.py without its record, on weights and moments as they are."""
    steps = config.train.total_steps
    schedule = optim.build_schedule(config.schedule.name, steps, **config.schedule.hyperparameters)
    batch = Batch.divide(config, 1)
    loader = Loader(
        split(config, "train"),
        batch_size=batch.size,
        data_seed=config.data_seed,
        block_size=config.model.block_size,
    )
    with loader.batches(0, pin_memory=False) as batches:
        for step in range(steps):
            rows = next(batches)
            for chunk in rows.split(batch.micro):
                (model(chunk[:, :-1], chunk[:, 1:]) * len(chunk) / len(rows)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.grad_clip)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def split(config: Config, name: str) -> Tokens:
    """The tokens of the contest's split."""
    shape, data = config.model, config.data
    return open_split(data.dir, name, vocab_size=shape.vocab_size, format=data.format)


def validate(model: train_gpt2.GPT, config: Config) -> float:
    """Mean loss on the contest's validation tokens."""
    validation = HeldOut(
        split(config, "val"), num_tokens=config.eval.tokens, block_size=config.model.block_size
    )
    alone = Process(0, 0, 1, torch.device("cpu"))
    rows = Batch.divide(config, 1).micro
    return train_gpt2.evaluate(model, validation, rows, alone).double().mean().item()


def table(found: dict[str, Any]) -> None:
    """Both orders side by side."""
    print(f"\n{'arm':<22}{'place':>7}{'final':>9}{'place reversed':>16}{'final':>9}")
    for name, row in found["file"].items():
        other = found["reverse"][name]
        places = f"{row['position']:7}{row['final']:9.4f}{other['position']:16}"
        print(f"{name:<22}{places}{other['final']:9.4f}")
    for order in ("file", "reverse"):
        rho = found[f"spearman of the {order} order"]
        print(f"Spearman of place and final loss, {order} order: {rho:+.3f}")


if __name__ == "__main__":
    sys.exit(main())
