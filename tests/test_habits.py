"""What CONTRIBUTING promises: its commands are there, and its list of mutants fits the code."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.jobs import ROOT

INSTALLED = Path(sys.executable).parent
TOKENS = "data/tokens/stdlib/meta.json"


def test_hooks_call_tools_that_are_installed():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        folder, _, name = hook["entry"].split()[0].rpartition("/")
        assert folder == ".venv/bin"  # where the Makefile installs what constraints.txt pins
        assert shutil.which(name, path=INSTALLED), name
        assert hook["language"] == "system"


@pytest.mark.parametrize(
    ("page", "some"),
    [("CONTRIBUTING.md", {"quick", "mutants"}), ("README.md", {"train", "contest"})],
)
def test_makefile_has_every_command_of_a_page(page, some):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / page).read_text()
    commands = re.findall(r"(?:`|^    )make ((?:[a-z-]+ ?)+)", text, re.MULTILINE)
    named = {name for command in commands for name in command.split()}
    assert some <= named <= targets


@pytest.mark.parametrize(
    ("target", "commands"),
    [
        ("train", ["-m launch --nproc 2 configs/quickstart.toml"]),
        ("contest", ["-m contest configs/contest/quickstart.toml", "-m contest.expected"]),
    ],
)
def test_first_commands_end_with_what_to_type_next(tmp_path, target, commands):
    """With a stand-in for the installed Python, which writes down what it is asked for."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    python.chmod(0o755)
    done = [word for name in (".venv/installed", TOKENS) for word in ("-o", name)]
    words = ["make", "--silent", f"BIN={tmp_path}", *done, target]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    asked = (tmp_path / "asked").read_text().splitlines()
    assert all(a.startswith(command) for a, command in zip(asked, commands, strict=True)), asked
    first, *rest = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    assert first.split("#")[0].strip() == ". .venv/bin/activate"
    assert rest
    assert all(line.startswith("python -m ") for line in rest)


def functions(body, prefix=""):
    """Names of functions and methods, as the list of equivalent mutants writes them."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}{node.name}.")


def test_every_equivalent_mutant_names_a_function_of_its_file():
    listed = tomllib.loads((ROOT / "tests" / "equivalent_mutants.toml").read_text())["mutant"]
    named = {(mutant["file"], mutant["function"]) for mutant in listed}
    files = {file: ast.parse((ROOT / file).read_text()) for file, _ in named}
    defined = {(file, name) for file, tree in files.items() for name in functions(tree.body)}
    assert named <= defined, sorted(named - defined)
