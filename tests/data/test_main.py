"""`python -m data`: its commands, their help, and mistakes in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.jobs import ROOT


def test_without_arguments_it_prints_the_commands(cli):
    result = cli()
    assert result.returncode == 0
    assert all(
        name in result.stdout for name in ("fineweb", "text", "stdlib", "coinflip", "inspect")
    )


@pytest.mark.parametrize("command", ["fineweb", "text", "stdlib", "coinflip", "inspect"])
def test_every_command_has_help(cli, command):
    result = cli(command, "--help")
    assert result.returncode == 0
    assert len(result.stdout) > 100


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("fineweb", "--tokens", "many"),
        ("text",),
        ("text", "x", "--workers", "0"),
        ("coinflip", "--p", "1.5"),
        ("inspect", "nowhere"),
        ("stdlib", "--out", "/dev/null/x"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(cli, arguments):
    result = cli(*arguments)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_import_is_light():
    # What takes seconds to import is imported where it is used.
    code = "import sys, data, data.__main__; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = set(result.stdout.split())
    assert not loaded & {"torch", "datasets", "tiktoken", "pyarrow", "tqdm", "huggingface_hub"}
    assert not loaded & {"configs", "optim", "report"}
