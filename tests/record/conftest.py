"""A run that the tests of W&B's files share."""

import json
from pathlib import Path

import pytest

from tests.jobs import once
from tests.record.test_wandb_mirror import run


@pytest.fixture(scope="session")
def offline(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The folder of a run of 20 steps that has ended, and what it printed; not to be changed."""

    def make(folder: Path) -> None:
        (folder / "said.json").write_text(json.dumps(run(folder / "run", "auto")))

    folder = once(tmp_path_factory, "offline", make)
    return folder / "run", json.loads((folder / "said.json").read_text())
