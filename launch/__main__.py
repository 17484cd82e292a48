"""Train on this machine, with one process per GPU, or one on the CPU.

    python -m launch configs/gpt2_124m.toml configs/schedule/wsd.toml --optimizer.lr 3e-4 --seed 2
    python -m launch --nproc 2 configs/quickstart.toml
    python -m launch --max-restarts 3 configs/gpt2_124m.toml      # resumes if a process dies

Files and --key value belong to the trainer: `python train_gpt2.py --help` lists the keys. So do the
exit codes: 0 finished, or stopped with a checkpoint; 2 a mistake, in one line; 3 diverged; 1 a
process failed. 128 + N: signal N ended a process, or came before training began. docs/launch.md
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from launch.node import one_of, train, visible_gpus


def main(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    try:
        options, words = _parser().parse_known_args(argv)
        if problem := _problem(options, words):
            raise argparse.ArgumentError(None, problem)
    except argparse.ArgumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    nproc = options.nproc or max(1, len(visible_gpus()))
    if {"--print-config", "--print_config"}.intersection(words):
        return one_of(words, nproc)
    return train(words, nproc, options.max_restarts, options.shutdown_timeout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m launch",
        usage="python -m launch [options] [FILE.toml ...] [--key value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    add = parser.add_argument
    text = "processes (default: one per GPU; without GPUs one, with a thread per core)"
    names = ("--nproc", "--nproc-per-node", "--nproc_per_node")
    add(*names, type=int, metavar="N", help=text)
    text = "how often to resume from the last checkpoint when a process has died (default: 0)"
    add("--max-restarts", "--max_restarts", type=int, default=0, metavar="N", help=text)
    text = "s for a checkpoint after a signal, before the processes are killed (default: 60)"
    add("--shutdown-timeout", "--shutdown_timeout", type=int, default=60, metavar="S", help=text)
    return parser


def _problem(options: argparse.Namespace, words: Sequence[str]) -> str | None:
    """What is wrong with a command line that could be parsed."""
    least = {"nproc": 1, "max_restarts": 0, "shutdown_timeout": 0}
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            return f"--{name.replace('_', '-')} {value} should be {smallest} or more"
    if any(map(_is_contest, words)):
        command = shlex.join(["python", "-m", "contest", *words])
        return f"contests have a command of their own: {command}"
    return None


def _is_contest(word: str) -> bool:
    """Whether it is a contest file."""
    try:
        return word.endswith(".toml") and "contest" in tomllib.loads(Path(word).read_text())
    except (OSError, ValueError):  # the trainer says what is wrong with it
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
