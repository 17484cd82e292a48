"""A run's model as a folder that Hugging Face's transformers loads.

    python export.py runs/adamw-cosine-s1-1a2b3c4d my-gpt2
    python -c "from transformers import GPT2LMHeadModel as M; M.from_pretrained('my-gpt2')"

Weights are those that the run's evaluations used, also where an optimizer averages them. With
GPT-2's vocabulary, `AutoTokenizer.from_pretrained("gpt2")` belongs to it; bytes have none there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.trained import trained
from configs import ConfigError
from configs.size import parameters
from launch.process import run_main
from record import huggingface
from record.runlog import RecordError


def command(argv: list[str]) -> int:
    """Write the folder; returns the exit code 0."""
    lines = str(__doc__).split("\n\n")
    parser = argparse.ArgumentParser(
        description=lines[0], epilog=lines[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a run's folder, or FOLDER@STEP")
    parser.add_argument("folder", type=Path, help="to write: config.json, model.safetensors")
    options = parser.parse_args(argv)
    if (options.folder / huggingface.CONFIG).exists():
        raise ConfigError(f"{options.folder} holds a model already; give a new folder")
    source = trained(options.model, "cpu")
    model = source.model
    try:
        huggingface.write(
            options.folder, model.shape, model.state_dict(), {"trained_by": source.source}
        )
    except OSError as error:
        raise ConfigError(f"cannot write {options.folder}: {error}") from None
    print(f"{options.folder}: {parameters(model.shape):,} parameters, from {source.source}")
    return 0


def main(argv: list[str]) -> int:
    """Run one command line; returns the exit code, after one line for a user error."""
    return run_main(lambda: command(argv), (ConfigError, RecordError))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
