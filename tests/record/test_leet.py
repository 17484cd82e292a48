"""One terminal view of all runs: what `wandb leet` is given to show."""

import shutil

import pytest

from record.leet import gather, main
from tests.record.test_wandb_mirror import expected, history, run


def test_every_run_is_there_once_and_a_resumed_one_is_whole(offline, tmp_path):
    resumed = shutil.copytree(offline[0], tmp_path / "runs/resumed")
    run(resumed, "offline", 5, offset=offline[1]["offset"])
    run(tmp_path / "runs/contest/other", "offline", 3)
    place = tmp_path / "view/wandb"
    place.mkdir(parents=True)
    assert gather([tmp_path / "runs"], place) == 2
    assert len(list(place.glob("offline-run-2*/*.wandb"))) == 2
    assert history(tmp_path / "view") == expected(range(25))
    assert not list((tmp_path / "runs").rglob("*.whole"))


def test_help_says_what_it_takes(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "usage: python -m record.leet [-h] [FOLDER ...]" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["nowhere"]])
def test_nothing_to_show_is_one_line(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"no run in {(words or ['runs'])[0]} has W&B's files" in error
