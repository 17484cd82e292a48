"""Text from a model: of a run, or in Hugging Face's form.

    python sample.py runs/adamw-cosine-s1-1a2b3c4d --prompt "def main("
    python sample.py runs/adamw-cosine-s1-1a2b3c4d@1000 --temperature 0
    python sample.py gpt2 --prompt FILE:question.txt                # from the Hugging Face hub

Weights are those that the run's evaluations used, also where an optimizer averages them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from analysis.trained import Trained, trained
from configs import ConfigError
from data import DataError
from data.vocabulary import Tokenizer
from launch.process import run_main
from record.runlog import RecordError
from train_gpt2 import GPT


@torch.no_grad()
def continued(
    model: GPT, tokens: Tensor, count: int, temperature: float, top_k: int | None, seed: int
) -> Iterator[int]:
    """Up to `count` further token ids after `tokens` (T,), one by one.

    Args:
        model: sees the last block_size tokens.
        tokens: at least one.
        count: how many at most.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: draw among so many likeliest tokens; None: among all.
        seed: of the draws, which are the same on every device.
    """
    generator, device = torch.Generator().manual_seed(seed), model.wte.weight.device
    context = tokens.to(device)
    for _ in range(count):
        context = context[-model.shape.block_size :]
        logits = model.logits(context[None])[0, -1].float().cpu()
        if temperature == 0:
            drawn = int(logits.argmax())
        else:
            logits = logits / temperature
            if top_k is not None and top_k < len(logits):
                logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
            drawn = int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
        yield drawn
        context = torch.cat([context, torch.tensor([drawn], device=device)])


def text(tokenizer: Tokenizer, ids: Iterator[int]) -> Iterator[str]:
    """The text of `ids` in pieces of whole characters, up to the end-of-text token."""
    waiting: list[int] = []
    for token in ids:
        if token == tokenizer.eot_id:
            break
        waiting.append(token)
        piece = tokenizer.decode(waiting)
        if not piece.endswith("\N{REPLACEMENT CHARACTER}") or len(waiting) > 8:
            waiting = []
            yield piece
    if waiting:
        yield tokenizer.decode(waiting)


def prompt_tokens(source: Trained, tokenizer: Tokenizer, prompt: str) -> Tensor:
    """The ids of a prompt, with the end-of-text token before it, as at the start of a document.

    Raises:
        ConfigError: it cannot be read, or is longer than the context; one line.
    """
    if prompt.startswith("FILE:"):
        try:
            prompt = Path(prompt[5:]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--prompt {prompt}: {error}") from None
    ids = torch.from_numpy(tokenizer.encode([prompt]).astype("int64"))
    if len(ids) > (block := source.model.shape.block_size):
        raise ConfigError(
            f"the prompt has {len(ids) - 1} tokens, and the model's context holds {block}, one of"
            f" which begins the text; give at most {block - 1}"
        )
    return ids


def command(argv: list[str]) -> int:
    """Print samples; returns the exit code 0."""
    lines = str(__doc__).split("\n\n")
    parser = argparse.ArgumentParser(
        description=lines[0], epilog=lines[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a run's folder, FOLDER@STEP, or weights as transformers has")
    parser.add_argument("--prompt", default="", help="the text to continue, or FILE:PATH")
    parser.add_argument("--samples", type=int, default=1, help="how many (%(default)s)")
    parser.add_argument(
        "--tokens", type=int, default=200, help="of each sample at most (%(default)s)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="0: likeliest token (%(default)s)"
    )
    parser.add_argument(
        "--top-k", type=int, default=200, help="likeliest tokens drawn from (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first sample (%(default)s)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args(argv)
    if options.temperature < 0 or options.top_k < 1 or min(options.samples, options.tokens) < 1:
        raise ConfigError("temperature should be 0 or more; top-k, samples and tokens at least 1")
    source = trained(options.model, options.device)
    tokenizer = source.tokenizer()
    start = prompt_tokens(source, tokenizer, options.prompt)
    given = tokenizer.decode(start[1:].tolist())
    for seed in range(options.seed, options.seed + options.samples):
        print(given, end="", flush=True)
        how = options.tokens, options.temperature, options.top_k, seed
        for piece in text(tokenizer, continued(source.model, start, *how)):
            print(piece, end="", flush=True)
        print("\n---------------" if options.samples > 1 else "")
    return 0


def main(argv: list[str]) -> int:
    """Run one command line; returns the exit code, after one line for a user error."""
    return run_main(lambda: command(argv), (ConfigError, DataError, RecordError))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
