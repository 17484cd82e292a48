"""Several sources and several lengths as one study."""

import shutil

from report.sources import read
from tests.report.contest_folder import configuration, curve, folder_of, write_contest, write_run


def test_same_folder_twice_counts_once_and_a_copy_is_named(home, tmp_path):
    assert len(read([str(home), str(home)]).runs) == 4
    shutil.copytree(folder_of(home, "wsd", 1), home / "copy")
    study = read([str(home)])
    assert len(study.of("wsd")) == 2
    assert any("left out" in problem for problem in study.problems)


def test_two_contests_with_the_same_arms_are_told_apart(home, tmp_path):
    other = write_contest(tmp_path / "later", {"cosine": 0.0, "rex": 0.0}, seeds=(1, 2), steps=20)
    study = read([str(home), str(other)])
    assert study.arms == ["demo/cosine", "wsd", "later/cosine", "rex"]
    assert study.baseline is None
    assert read([str(tmp_path)]).arms == study.arms


def test_several_lengths_are_several_arms(tmp_path):
    for steps in (20, 40):
        for arm in ("cosine", "wsd"):
            config = configuration(arm, 1, steps=steps)
            write_run(tmp_path / f"{arm}{steps}", config, curve(1, steps, 0.0))
    study = read([str(tmp_path)])
    assert study.arms == ["cosine @ 20", "cosine @ 40", "wsd @ 20", "wsd @ 40"]
    assert [run.length for run in study.of("wsd @ 40")] == [40]


def test_an_arm_of_a_length_of_its_own_keeps_its_runs(tmp_path):
    for arm, steps in (("cosine", 20), ("cosine", 40), ("wsd", 30)):
        config = configuration(arm, 1, steps=steps)
        write_run(tmp_path / f"{arm}{steps}", config, curve(1, steps, 0.0))
    study = read([str(tmp_path)])
    assert study.arms == ["cosine @ 20", "cosine @ 40", "wsd @ 30"]
    assert [run.name for run in study.of("wsd @ 30")] == ["wsd30"]
