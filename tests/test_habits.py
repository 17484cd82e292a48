"""What CONTRIBUTING promises about commands: they are there, and they call what is installed."""

import re
import shutil
import sys
from pathlib import Path

import yaml

from tests.jobs import ROOT

INSTALLED = Path(sys.executable).parent


def test_hooks_call_tools_that_are_installed():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        folder, _, name = hook["entry"].split()[0].rpartition("/")
        assert folder == ".venv/bin"  # where the Makefile installs what constraints.txt pins
        assert shutil.which(name, path=INSTALLED), name
        assert hook["language"] == "system"


def test_makefile_has_every_command_of_contributing():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / "CONTRIBUTING.md").read_text()
    commands = re.findall(r"`make ((?:[a-z-]+ ?)+)`", text)
    assert {name for command in commands for name in command.split()} <= targets
    assert "quick" in targets
