"""`python -m analysis COMMAND`: what can be asked of trained weights, from runs' checkpoints.

    python -m analysis sharpness runs/A runs/B@all       # eigenvalues, trace, Keskar, adaptive
    python -m analysis line runs/A runs/B                # loss between two runs; barrier
    python -m analysis plane runs/A runs/B runs/C        # or one run: two random directions
    python -m analysis width configs/quickstart.toml     # a coordinate check, standard and muP
    python -m analysis hellaswag runs/A gpt2             # accuracy on HellaSwag's questions

A run is its folder, FOLDER@STEP or, for sharpness and hellaswag, FOLDER@all. Weights are those
that the run's evaluations used. Exit codes: 0 done, 2 user error, reported in one line, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs.validation import positive


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    options, words = parser.parse_known_args(arguments)
    if words and options.command != "width":
        parser.error(f"unrecognized arguments: {' '.join(words)}")
    values = {key: value for key, value in vars(options).items() if key not in ("command", "runs")}
    # imports torch and scipy, which --help and a typo do without
    import torch

    from analysis import hellaswag, paths, sharpness, width
    from configs import ConfigError, load
    from data import DataError
    from optim import resolve
    from record.runlog import RecordError

    torch.set_float32_matmul_precision("highest")
    try:
        if options.command == "sharpness":
            values["rescale"] = tuple(options.rescale or (1.0,))
            sharpness.measure_all(options.runs, sharpness.Settings(**values))
        elif options.command == "width":
            width.check(resolve(load(words)), width.Settings(**values))
        elif options.command == "hellaswag":
            hellaswag.answer(options.runs, **values)
        elif options.command == "line":
            paths.line(options.runs, paths.Settings(**values))
        else:
            if len(options.runs) not in (1, 3):
                raise ConfigError(f"a plane goes through 1 or 3 models, not {len(options.runs)}")
            paths.plane(options.runs, paths.Settings(**values))
    except (ConfigError, DataError, RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "; checkpoints measured so far are in their records"
        print(f"interrupted{kept if options.command == 'sharpness' else ''}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    lines = str(__doc__).split("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m analysis",
        description=lines[0],
        epilog="\n\n".join(lines[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = p.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _sharpness(_command(commands, "sharpness", "+", "how curved the loss is at checkpoints"))
    one = _command(commands, "line", 2, "the loss along the line between two models")
    one.add_argument("--points", type=_at_least(2), default=21, help="on the line (%(default)s)")
    one.add_argument("--out", type=_page, default=Path("line.html"), help=_OUT)
    two = _command(
        commands, "plane", "+", "the loss on a plane through three models, or around one"
    )
    two.add_argument("--points", type=_at_least(2), default=15, help="on each axis (%(default)s)")
    two.add_argument("--out", type=_page, default=Path("plane.html"), help=_OUT)
    two.add_argument("--split", choices=("train", "val"), default="val", help="(%(default)s)")
    far = "how far the random directions go; 1: as far as the weights are large (%(default)s)"
    two.add_argument("--span", type=positive, default=1.0, help=far)
    two.add_argument(
        "--seed", type=_at_least(0), default=0, help="of random directions (%(default)s)"
    )
    _width(commands)
    quiz = _command(commands, "hellaswag", "+", "accuracy on HellaSwag's questions", on_text=False)
    given = "a file as hellaswag_val.jsonl, or hub: the Hugging Face hub's (%(default)s)"
    quiz.add_argument("--questions", default="hub", metavar="FILE|hub", help=given)
    return p


_OUT = "page with the figure; its numbers go beside it, as .csv (%(default)s)"


def _command(
    commands: Any, name: str, runs: int | str, said: str, on_text: bool = True
) -> argparse.ArgumentParser:
    p: argparse.ArgumentParser = commands.add_parser(name, help=said, description=said)
    p.add_argument("runs", nargs=runs, metavar="RUN", help="FOLDER or FOLDER@STEP of a run")
    if on_text:
        tokens = "of text: the first sequences of the run's data (%(default)s)"
        p.add_argument("--tokens", type=_at_least(1), default=4096, help=tokens)
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return p


def _sharpness(p: argparse.ArgumentParser) -> None:
    splits = "seen: what the run was trained on, from its first update (%(default)s)"
    p.add_argument("--split", choices=("train", "seen", "val"), default="train", help=splits)
    count = "how many of the largest; 0: none, also preconditioned (%(default)s)"
    p.add_argument("--eigenvalues", type=_at_least(0), default=1, metavar="K", help=count)
    draws = "random vectors for the trace, at least 2; 0: no trace (%(default)s)"
    p.add_argument("--draws", type=_at_least(2, 0), default=10, metavar="N", help=draws)
    passes = "gradients of each search for the highest loss nearby; 0: none (%(default)s)"
    p.add_argument("--passes", type=_at_least(0), default=20, metavar="N", help=passes)
    alpha = "measure the same function with weights scaled layer by layer, for each in turn"
    p.add_argument("--rescale", type=positive, nargs="+", metavar="ALPHA", help=alpha)
    p.add_argument("--seed", type=_at_least(0), default=0, help="of random vectors (%(default)s)")


def _width(commands: Any) -> None:
    said = "whether activations keep their size with the width, in the standard way and with muP"
    p = commands.add_parser(
        "width",
        help=said,
        description=said,
        usage="%(prog)s [FILE.toml ...] [--key value ...] [options]",
        epilog="Files and keys are those of a run; optimizer.lr is taken as it is, no schedule.",
        allow_abbrev=False,
    )
    p.add_argument(
        "--widths",
        type=_widths,
        default="64,128,256,512",
        metavar="N,...",
        help="of the models (%(default)s)",
    )
    p.add_argument("--steps", type=_at_least(1), default=4, help="updates (%(default)s)")
    p.add_argument("--seeds", type=_at_least(1), default=3, help="averaged over (%(default)s)")
    p.add_argument("--tokens", type=_at_least(1), default=1024, help="of an update (%(default)s)")
    p.add_argument("--out", type=_page, default=Path("width.html"), help=_OUT)
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def _widths(text: str) -> tuple[int, ...]:
    """Two or more widths, ascending.

    Raises:
        argparse.ArgumentTypeError: the text is anything else.
    """
    found = tuple(int(word) if word.isdecimal() else 0 for word in text.split(","))
    if len(found) < 2 or found[0] < 1 or list(found) != sorted(set(found)):
        raise argparse.ArgumentTypeError(f"{text!r} should be ascending widths, such as 64,128,256")
    return found


def _at_least(lowest: int, *others: int) -> Callable[[str], int]:
    """A reader of whole numbers from `lowest` on, or one of `others`."""

    def read(text: str) -> int:
        if not text.isdecimal() or (int(text) < lowest and int(text) not in others):
            beside = "".join(f", or {other}" for other in others)
            raise argparse.ArgumentTypeError(
                f"{text!r} should be a whole number of at least {lowest}{beside}"
            )
        return int(text)

    return read


def _page(text: str) -> Path:
    """The path of a page.

    Raises:
        argparse.ArgumentTypeError: it does not end in .html, or there is no such folder.
    """
    page = Path(text)
    if page.suffix != ".html":
        raise argparse.ArgumentTypeError(f"{text!r} should end in .html")
    if not page.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {page.parent}; make it first")
    return page


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
