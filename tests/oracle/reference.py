"""Hugging Face's GPT-2 with the weights of a run; shards and records read without our readers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel


def shard_tokens(path: Path) -> torch.Tensor:
    """Tokens after llm.c's header of 1024 bytes."""
    return torch.from_numpy(np.fromfile(path, "<u2", offset=1024).astype(np.int64))


def windows(path: Path, count: int, length: int) -> torch.Tensor:
    """The first `count` windows of `length` inputs and one more token: (count, length + 1)."""
    tokens = shard_tokens(path)
    return torch.stack([tokens[i * length : (i + 1) * length + 1] for i in range(count)])


def hugging_face(weights: dict[str, torch.Tensor], shape: dict[str, int]) -> torch.nn.Module:
    """GPT2LMHeadModel that holds copies of `weights`, in evaluation mode (no dropout)."""
    config = GPT2Config(
        vocab_size=shape["vocab_size"],
        n_positions=shape["block_size"],
        n_layer=shape["n_layer"],
        n_head=shape["n_head"],
        n_embd=shape["n_embd"],
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, p in model.transformer.named_parameters():
            ours = weights[name]
            if ours.ndim == 2 and name.startswith("h."):
                ours = ours.T  # their linear maps are stored (in, out)
            p.copy_(ours[: len(p)])
    return model


def mean_loss(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over all targets of `rows`, nats per token."""
    logits = model(rows[:, :-1]).logits.double()
    return -logits.log_softmax(-1).gather(2, rows[:, 1:, None]).mean()


def lines_of(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def column(lines: list[dict[str, Any]], name: str) -> np.ndarray:
    """The values of `name` in the lines that have it."""
    return np.array([line[name] for line in lines if name in line])
