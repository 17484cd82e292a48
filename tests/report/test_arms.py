"""Loose runs as arms: by their settings, named by the keys that differ."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.arms import with_arms
from report.judgement import judge
from report.run import default_arm
from report.sources import read
from report.study import Study, by_length
from tests.report.contest_folder import configuration, curve, write_contest, write_run
from tests.report.studies import a_run


def loose(seed=1, *, arm=None, steps=100, hashes=None, **keys):
    """A run in memory without a plan; keys: `train__grad_clip=0.5`; None takes a key away."""
    config = configuration("cosine", seed, steps=steps)
    for key, value in keys.items():
        table, _, name = key.partition("__")
        config[table] = config.get(table, {}) | {name: value}
    run = a_run(arm or default_arm(config), seed, 3.0, steps=steps)
    return replace(run, config=config, name=f"run{seed}", hashes=hashes or run.hashes)


def names(*runs):
    return [run.arm for run in with_arms(runs)]


def test_unequal_settings_are_never_averaged_and_are_named_by_what_differs():
    runs = [loose(seed, optimizer__lr=rate) for rate in (1e-2, 6e-4) for seed in (1, 2)]
    assert names(*runs) == ["adamw lr=0.01"] * 2 + ["adamw lr=0.0006"] * 2


def test_a_name_has_only_the_keys_that_differ_among_runs_of_its_optimizer():
    runs = [
        loose(optimizer__lr=1e-2, optimizer__betas=[0.9, 0.95]),
        loose(optimizer__lr=1e-2, optimizer__betas=[0.9, 0.99], train__compile=True),
        loose(optimizer__name="lion", optimizer__lr=1e-4),
    ]
    assert names(*runs) == [
        "adamw betas=0.9,0.95 compile=auto",
        "adamw betas=0.9,0.99 compile=true",
        "lion",
    ]


def test_schedules_are_in_the_name_where_they_differ():
    assert names(loose(), loose(2)) == ["adamw", "adamw"]
    assert names(loose(), loose(schedule__name="wsd")) == ["adamw-cosine", "adamw-wsd"]


def test_a_key_is_written_in_full_where_its_last_part_is_that_of_another():
    runs = [
        loose(optimizer__warmup_steps=1, schedule__warmup_steps=2),
        loose(optimizer__warmup_steps=3, schedule__warmup_steps=4),
    ]
    assert names(*runs) == [
        "adamw optimizer.warmup_steps=1 schedule.warmup_steps=2",
        "adamw optimizer.warmup_steps=3 schedule.warmup_steps=4",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("log__dir", "elsewhere"),
        ("log__job_type", None),
        ("checkpoint__every", 7),
        ("launch__join_seconds", 9.0),
        ("train__micro_batch_size", 1),
        ("train__device", "cpu"),
        ("train__dtype", "auto"),  # the default, which a configuration of an older version lacks
    ],
)
def test_keys_that_change_no_result_do_not_split_an_arm(key, value):
    assert names(loose(1), loose(2, **{key: value})) == ["adamw", "adamw"]


def test_the_same_tokens_at_another_place_are_one_arm_and_other_tokens_are_not():
    moved = loose(1, data__dir="/other/place")
    both = {"weights": "w2", "batches": "b2"}
    assert names(loose(1), moved, loose(2, data__dir="/other/place", hashes=both)) == ["adamw"] * 3
    other = loose(1, data__dir="/other/place", hashes={"weights": "w1", "batches": "x"})
    assert names(loose(1), other) == ["adamw dir=data/tokens", "adamw dir=/other/place"]


def test_a_job_type_names_an_arm_and_unequal_settings_under_it_are_told_apart():
    runs = [loose(1, arm="mine"), loose(2, arm="mine"), loose(1, arm="mine", train__grad_clip=0.5)]
    assert names(*runs[:2]) == ["mine", "mine"]
    assert names(*runs) == ["mine grad_clip=1.0"] * 2 + ["mine grad_clip=0.5"]


def test_a_run_left_over_from_an_earlier_plan_does_not_join_its_arm(home):
    """The contest file's rate was changed, and folders of the old rate lie beside the new ones."""
    config = configuration("wsd", 9, steps=20, lr=5e-3)
    write_run(home / "adamw-wsd-s9-old", config, curve(9, 20, 0.0))
    same = configuration("wsd", 8, steps=20)
    write_run(home / "adamw-wsd-s8-added", same, curve(8, 20, 0.0))
    study = read([str(home)])
    assert study.arms == ["cosine", "wsd", "wsd lr=0.005"]
    assert [run.seed for run in study.of("wsd")] == [1, 2, 8]
    assert [run.seed for run in study.of("wsd lr=0.005")] == [9]


def test_any_two_run_folders_are_compared_and_the_first_is_the_baseline(tmp_path):
    for name, rate in (("B", 1e-2), ("A", 6e-4)):
        config = configuration("cosine", 1, steps=20, lr=rate)
        del config["log"]["job_type"], config["log"]["group"]
        write_run(tmp_path / name, config, curve(1, 20, 0.0))
    study = read([str(tmp_path / "B"), str(tmp_path / "A")])
    assert (study.baseline, study.arms) == ("adamw lr=0.01", ["adamw lr=0.01", "adamw lr=0.0006"])
    assert study.problems == []
    row = next(r for r in judge(study).rows if r.comparison)
    assert row.comparison.words == "no verdict: with one seed, no difference can be told from noise"
    folder = read([str(tmp_path)])
    assert folder.baseline == "adamw lr=0.0006"
    assert folder.problems == [
        "no baseline was named: adamw lr=0.0006 is the first by name; --baseline ARM names another"
    ]


def test_first_of_two_runs_is_the_baseline_also_if_it_is_the_longer_one(tmp_path):
    for steps in (20, 40):
        config = configuration("cosine", 1, steps=steps)
        write_run(tmp_path / str(steps), config, curve(1, steps, 0.0))
    study = read([str(tmp_path / "40"), str(tmp_path / "20")])
    assert study.baseline == "cosine @ 40"


def test_runs_of_one_setting_and_two_lengths_are_refused_and_not_averaged(tmp_path):
    for steps in (20, 40):
        write_run(
            tmp_path / f"{steps}", configuration("cosine", 1, steps=steps), curve(1, steps, 0.0)
        )
    found = judge(read([str(tmp_path / "20"), str(tmp_path / "40")]))
    said = {row.arm: row.comparison and row.comparison.words for row in found.rows}
    assert said == {
        "cosine @ 20": None,
        "cosine @ 40": "refused: unequal lengths: 163,840 tokens against 81,920 of the baseline",
    }


PLANNED = st.tuples(
    st.sampled_from(["a", "b", "c @ 5,000"]),
    st.sampled_from([None, 100, 200, 300]),
    st.sampled_from(["finished", "stopped", "missing"]),
    st.sampled_from(["report", "tuning"]),
)


@given(st.lists(PLANNED, min_size=1, max_size=8))
def test_however_lengths_mix_every_run_is_in_an_arm_of_the_study(given_runs):
    runs = []
    for seed, (arm, steps, status, role) in enumerate(given_runs):
        run = a_run(arm, seed, 3.0, steps=steps or 100, status=status, role=role)
        config = run.config if steps else {}  # damaged, or not there yet
        runs.append(replace(run, config=config))
    study = by_length(Study("c", runs, "a", None, ["a"]))
    shown = [run for arm in study.arms for run in study.of(arm)]
    assert sorted(run.seed for run in shown) == [r.seed for r in runs if r.role == "report"]
    for arm in study.arms:
        known = {run.total_steps for run in study.of(arm)} - {None}
        assert len(known) < 2
        assert study.without_length(arm) in {"a", "b", "c @ 5,000"}


def test_an_arm_whose_name_looks_like_a_length_keeps_its_tuning(tmp_path):
    """A contest of an earlier version could name an arm so."""
    gains = {"cosine": 0.0, "x @ 5,000": 0.02}
    home = write_contest(tmp_path / "demo", gains, seeds=(1, 2), steps=20, tuning=True)
    rows = {row.arm: row for row in judge(read([str(home)])).rows}
    assert rows["x @ 5,000"].tuned.best == {"optimizer.lr": 1e-3}


def test_a_key_of_a_role_is_named_by_its_role_and_no_ratio_is_a_ratio_of_1():
    def role(name, ratio):
        return {name: {"lr_ratio": ratio}}

    runs = [loose(), *(loose(optimizer__roles=role("embedding", r)) for r in (1.0, 2.0))]
    assert names(*runs) == ["adamw embedding.lr_ratio=1.0"] * 2 + ["adamw embedding.lr_ratio=2.0"]
    linear = loose(schedule__roles={"hidden": {"name": "linear"}})
    assert names(loose(), linear) == ["adamw hidden=cosine", "adamw hidden=linear"]
