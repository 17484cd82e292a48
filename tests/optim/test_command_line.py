"""python -m optim: the listing, the table and the picture."""

import subprocess
import sys

import pytest

from optim import OPTIMIZERS, SCHEDULES
from optim.__main__ import main


def test_list_shows_every_name_with_its_defaults(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in [*OPTIMIZERS, *SCHEDULES])
    assert "betas (0.9, 0.999), eps 1e-08" in out


def test_table_of_chosen_schedules(capsys):
    assert main(["schedules", "linear", "wsd", "--total-steps", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["schedule", "linear", "wsd"]
    assert lines[1].split()[1:] == ["0.5000", "1.0000", "0.5100", "1.02e-02"]


def test_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "schedules.png"
    assert main(["schedules", "--total-steps", "50", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["schedules", "--out", str(tmp_path / "no" / "where.png")]) == 2
    assert capsys.readouterr().err.startswith("error: --out = ")


def test_mistakes_are_one_line(capsys, monkeypatch, tmp_path):
    assert main(["schedules", "wds"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown schedule.name = 'wds'; did you mean 'wsd'?")
    assert error.count("\n") == 1
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["schedules", "--out", str(tmp_path / "a.png")]) == 2
    assert "pip install" in capsys.readouterr().err


def test_importing_optim_does_not_import_the_plotting_library():
    check = "import sys, optim; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
