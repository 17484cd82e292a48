"""Several sources and several lengths as one study."""

import shutil
import tomllib

import tomli_w

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


def named_alike(folder, seeds, **settings):
    """A contest `demo` in `folder` whose runs have these settings."""
    home = write_contest(folder / "demo", {"cosine": 0.0, "wsd": 0.0}, seeds=seeds, steps=20)
    for run in (path for path in home.iterdir() if path.is_dir()):
        config = tomllib.loads((run / "config.toml").read_text())
        config["optimizer"] |= settings
        (run / "config.toml").write_text(tomli_w.dumps(config))
    return str(home)


def test_contests_of_one_name_are_parts_of_one_only_with_equal_settings(tmp_path):
    first = named_alike(tmp_path / "a", (1, 2))
    more = named_alike(tmp_path / "b", (3, 4))
    study = read([first, more])
    assert (study.name, study.arms) == ("demo", ["cosine", "wsd"])
    assert len(study.of("wsd")) == 4
    other = named_alike(tmp_path / "c", (3, 4), lr=0.5)
    for study in (read([first, other]), read([str(tmp_path / "a"), str(tmp_path / "c")])):
        assert study.arms[:2] == [f"{first}/cosine", f"{first}/wsd"]
        assert [run.seed for run in study.of(f"{other}/wsd")] == [3, 4]
        said = "demo: another contest of that name differs in optimizer.lr"
        assert said in study.problems


def test_two_contests_of_one_name_below_one_folder(tmp_path):
    first, other = named_alike(tmp_path / "a", (1,)), named_alike(tmp_path / "b", (1,), lr=0.5)
    study = read([str(tmp_path)])
    assert len(study.runs) == 4
    assert [len(study.of(f"{home}/cosine")) for home in (first, other)] == [1, 1]


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
