"""python -m optim: the listing, the table and the picture."""

import subprocess
import sys

import pytest

from optim import OPTIMIZERS, SCHEDULES, listing
from optim.__main__ import main
from optim.wrappers import WRAPPERS
from tests.jobs import ROOT


def test_list_shows_every_optimizer_with_what_it_costs_and_every_schedule(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in OPTIMIZERS)
    assert all(f"\n  {name} " in out for name in (*SCHEDULES, *WRAPPERS))
    lines = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line}
    assert lines["adamw"] == ("adamw Loshchilov & Hutter 2017, arXiv:1711.05101 8 28 - 0.001 adamw")


def test_the_table_of_the_documentation_is_that_of_list_markdown(capsys):
    assert main(["list", "--markdown"]) == 0
    table = capsys.readouterr().out
    assert sum(line.startswith("|") for line in table.splitlines()) == len(OPTIMIZERS) + 2
    assert table in (ROOT / "docs" / "optimizers.md").read_text(), "paste it in again"


def test_every_row_of_the_list_is_whole():
    rows = {row.name: row for row in listing.rows()}
    assert list(rows) == list(OPTIMIZERS)
    for row in rows.values():
        assert row.paper, row.name
        assert row.presets, row.name
        assert row.state >= 0
        assert row.traffic >= 12 + row.state  # reads parameter, gradient, state; writes parameter
    counted = {name: (rows[name].state, rows[name].traffic) for name in rows}
    for name, expected in {
        "sgd": (0, 12),
        "lion": (4, 20),
        "sophia_g": (8, 24),
        "prodigy": (16, 40),
        "schedule_free_adamw": (8, 28),
        "schedule_free_sgd": (4, 20),
    }.items():
        assert counted[name] == pytest.approx(expected, abs=1e-3), name


def test_bytes_of_the_list_are_those_that_steps_on_a_matrix_need():
    assert set(listing.COUNTED) <= set(OPTIMIZERS)
    for name, said in listing.COUNTED.items():
        assert said == tuple(float(f"{x:.3g}") for x in listing.counted(name)), name


def test_citation_is_read_off_the_source():
    text = (
        'First.\n\nSource: A & B, "A Title: of (2001) words",\narXiv:2302.06675; C 1999.\nState: 4'
    )
    assert listing.citation(text) == "A & B 2023, arXiv:2302.06675"
    assert listing.citation('Source: Polyak, "Title", Journal 4 (1964).\n\n  x') == "Polyak 1964"
    assert (
        listing.citation("Source: the control of X\n(arXiv:2412.11768).")
        == "after arXiv:2412.11768"
    )
    assert listing.citation("Source: a control of this project.") == "a control of this project"


def test_show_prints_the_documentation_the_defaults_and_the_preset(capsys):
    assert main(["show", "lion"]) == 0
    out = capsys.readouterr().out
    assert "\nSource: Chen et al." in out
    assert "u = sign(beta1 * m + (1 - beta1) * g)" in out
    assert "\n  optimizer.betas = (0.9, 0.99)\n" in out
    assert "\nPreset: configs/optimizer/lion.toml" in out
    assert main(["show", "wsd"]) == 0
    assert "schedule.decay_type = 1-sqrt" in capsys.readouterr().out
    assert main(["show", "ema"]) == 0
    assert "\n  optimizer.wrap.ema.decay = 0.999\n" in capsys.readouterr().out
    assert main(["show", "lyon"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no optimizer, schedule or wrapper 'lyon'; did you mean")
    assert error.count("\n") == 1


def test_show_takes_what_training_takes(capsys, tmp_path, monkeypatch):
    assert main(["show", "torch.optim.Adamax"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("torch.optim.Adamax\n")
    assert "\n  optimizer.lr = 0.002\n  optimizer.betas = (0.9, 0.999)\n" in out
    (tmp_path / "shown_lab.py").write_text(
        "def fall(step, total_steps, *, end: float, power=2):\n    return 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["show", "shown_lab.fall"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["  schedule.end = (must be given)", "  schedule.power = 2"]
    for name in ("torch.optim.Adamacks", "torch.nn.Linear", "no_such_lab.Opt"):
        assert main(["show", name]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_table_of_chosen_schedules(capsys):
    assert main(["schedules", "linear", "wsd", "--total-steps", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["schedule", "linear", "wsd"]
    assert lines[1].split()[1:] == ["0.2500", "1.0000", "0.5100", "1.04e-02"]


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
    assert "pip install matplotlib" in capsys.readouterr().err


def test_list_imports_neither_the_compiler_nor_the_plotting_library():
    """The compiler, which a step imports, takes a second."""
    code = "import sys; from optim.__main__ import main; main(['list']); "
    code += "print(*{'torch._dynamo', 'sympy', 'matplotlib'} & sys.modules.keys())"
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert output.splitlines()[-1] == ""


def test_show_says_what_each_role_gets(capsys):
    flags = "--optimizer.roles.embedding.lr_ratio 2 --schedule.roles.hidden.name linear_to_zero"
    assert main(["show", "muon", *flags.split(), "--optimizer.lr", "0.01"]) == 0
    hidden, embedding, vector = capsys.readouterr().out.splitlines()[-3:]
    assert hidden.startswith("  hidden    Muon's step (Q, K, V apart, matrix); lr 0.01; weight_d")
    assert hidden.endswith("schedule linear_to_zero")
    assert embedding.startswith(
        "  embedding AdamW's step; lr 0.02 (x2); weight_decay 0.1; betas 0."
    )
    assert vector.startswith("  vector    AdamW's step; lr 0.01; weight_decay 0; betas 0.")
    assert vector.endswith("schedule cosine")
    assert main(["show", "muon", "--optimizer.roles.embedding.momentum", "0.9"]) == 2
    assert "cannot have its own momentum" in capsys.readouterr().err
