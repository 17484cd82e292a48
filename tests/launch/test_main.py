"""`python -m launch`: what belongs to it, what to the trainer, and what it refuses."""

import pytest

from launch import __main__ as command
from tests.jobs import ROOT

NPROC = "--nproc/--nproc-per-node/--nproc_per_node"


@pytest.fixture
def called(monkeypatch):
    """What the ranks would be started with."""
    calls = []
    monkeypatch.setattr(command, "train", lambda *given: calls.append(given) or 3)
    monkeypatch.setattr(command, "visible_gpus", lambda: ["0", "1"])
    return calls


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("", ([], 2, 0, 60)),
        ("a.toml --seed 2 b.toml", (["a.toml", "--seed", "2", "b.toml"], 2, 0, 60)),
        ("--nproc 4 a.toml --seed=2", (["a.toml", "--seed=2"], 4, 0, 60)),
        ("--nproc_per_node=4 --optimizer.lr -1", (["--optimizer.lr", "-1"], 4, 0, 60)),
        ("--nproc-per-node 4 a.toml", (["a.toml"], 4, 0, 60)),
        ("--max-restarts 3 --shutdown-timeout 9 a.toml", (["a.toml"], 2, 3, 9)),
    ],
)
def test_options_are_its_own_and_all_other_words_the_trainers(called, line, given):
    assert command.main(line.split()) == 3, "the exit code is that of the ranks"
    assert called == [given]


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("--print-config a.toml", (["--print-config", "a.toml"], 2)),
        ("--nproc 4 --print_config", (["--print_config"], 4)),
    ],
)
def test_a_configuration_is_printed_by_one_process_that_knows_how_many_there_would_be(
    called, monkeypatch, line, given
):
    asked = []
    monkeypatch.setattr(command, "one_of", lambda *words: asked.append(words) or 2)
    assert command.main(line.split()) == 2
    assert asked == [given]
    assert not called


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--nproc 0", "error: --nproc 0 should be 1 or more"),
        ("--max-restarts -1", "error: --max-restarts -1 should be 0 or more"),
        ("--nproc two", f"error: argument {NPROC}: invalid int value: 'two'"),
        ("a.toml --nproc", f"error: argument {NPROC}: expected one argument"),
    ],
)
def test_mistake_is_named_in_one_line(called, capsys, line, said):
    assert command.main(line.split()) == 2
    assert capsys.readouterr() == ("", f"{said}\n")
    assert not called


def test_contest_file_names_the_command_of_contests(called, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["configs/contest/quickstart.toml", "--out", "my runs", "--dry-run"]
    assert command.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line == (
        "error: contests have a command of their own: "
        "python -m contest configs/contest/quickstart.toml --out 'my runs' --dry-run"
    )


def test_file_that_is_no_toml_is_left_to_the_trainer(called, tmp_path):
    (tmp_path / "broken.toml").write_text("a = = 1")
    assert command.main([str(tmp_path / "broken.toml")]) == 3
