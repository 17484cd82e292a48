"""Every program of bench/ starts in the same way."""

import runpy
import sys

import pytest

from tests.jobs import ROOT

FILES = [path.stem for path in (ROOT / "bench").glob("*.py") if path.stem != "__init__"]
PROGRAMS = sorted([*FILES, *(path.parent.name for path in (ROOT / "bench").glob("*/__main__.py"))])


@pytest.mark.parametrize("name", PROGRAMS)
def test_python_m_starts_it_and_its_help_says_so(name, monkeypatch, capsys):
    """`python -m` in this process: importing torch anew for each would cost a minute."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    for module in (f"bench.{name}", f"bench.{name}.__main__"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as exit_code:
        runpy.run_module(f"bench.{name}", run_name="__main__")
    assert exit_code.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")
