"""All runs of a folder in one terminal view: W&B's `leet` over what the runs left on disk.

    python -m record.leet runs

`wandb leet` browses one folder of W&B runs, and each of our runs keeps W&B's files in a folder of
its own. So this makes a folder of links to them, in a temporary place, and opens it. A run that was
resumed offline has a file for each launch: its lines are read from metrics.jsonl, as of now, and
shown whole. A live run that was not resumed goes on growing on the screen.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from record.runlog import CONFIG, RECORD, RecordError, read_metrics, read_record, read_summary
from record.wandb_mirror import Mirror, WandbOptions


def gather(folders: list[Path], place: Path) -> int:
    """Links in `place` to W&B's files of every run in `folders`; returns how many runs there are.

    Raises:
        RecordError: a run's record is damaged.
    """
    runs = sorted({path.parent.resolve() for folder in folders for path in folder.rglob(RECORD)})
    found = 0
    for run in runs:
        launches = sorted((run / "wandb").glob("*run-2*"))
        if len(launches) > 1:
            print(f"{run.name}: {len(launches)} launches, reading metrics.jsonl", flush=True)
            launches = [_whole(run, place / ".whole" / run.name)]
        for launch in launches:
            (place / launch.name).symlink_to(launch)
            found += 1
    return found


def _whole(run: Path, place: Path) -> Path:
    """W&B's folder of all launches of a run, made of its metrics.jsonl in `place`."""
    place.mkdir(parents=True)
    facts = (read_record(run) or {}).get("wandb", {})
    options = WandbOptions("offline", facts.get("project", "runs"), run.name)
    config = tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))
    mirror = Mirror(place, options, config, facts.get("id"), say=lambda line: None)
    for line in read_metrics(run):
        mirror.log(line["step"], {k: v for k, v in line.items() if k != "step"})
    summary = read_summary(run) or {}
    mirror.finish(summary.get("status", "running"), 0, summary)
    (launch,) = (place / "wandb").glob("offline-run-2*")
    return launch


def main(words: list[str]) -> int:
    """Open the view; returns its exit code, 2 where there is nothing to show.

    Raises:
        SystemExit: the words are not folders, or ask for help.
    """
    parser = argparse.ArgumentParser("python -m record.leet", description=__doc__.splitlines()[0])
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="of runs; default: runs"
    )
    folders = parser.parse_args(words).folders or [Path("runs")]
    with tempfile.TemporaryDirectory(prefix="leet-") as place:
        try:
            found = gather(folders, Path(place))
        except RecordError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        if not found:
            where = ", ".join(map(str, folders))
            print(
                f"error: no run in {where} has W&B's files; give a folder of runs, such as runs, "
                "trained without --log.wandb disabled",
                file=sys.stderr,
            )
            return 2
        wandb = [sys.executable, "-m", "wandb", "leet", place]
        return subprocess.run(wandb, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
