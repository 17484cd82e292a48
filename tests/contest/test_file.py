"""A contest file: what it means, and what is wrong with it in one line."""

import pytest

from configs import ConfigError, load
from contest import file as contests
from contest.__main__ import main
from contest.file import flag
from contest.plan import check, make
from tests.contest import tiny
from tests.jobs import ROOT

SHIPPED = sorted((ROOT / "configs/contest").glob("*.toml"))
TWO = {"cosine": {}, "wsd": {"schedule.name": "wsd"}}


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    monkeypatch.chdir(ROOT)  # base files are given as for train_gpt2.py


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_contest_is_whole_and_fits_one_and_eight_ranks(path, tmp_path):
    contest = contests.read(path)
    assert contest.name == path.stem
    assert contest.text.startswith("#"), "what it asks, and how to get its data"
    check(contest, tmp_path / contest.name, nproc=1)
    if "gpt2_124m" in contest.table.base[0]:
        check(contest, tmp_path / contest.name, nproc=8)
    assert make(contest, tmp_path).jobs
    assert not list(tmp_path.iterdir()), "a plan writes nothing by itself"


def test_contests_of_the_docs_are_shipped():
    names = "quickstart schedules schedules_small schedules_shakespeare optimizers sgd_sai"
    assert {*names.split(), "large_batch", "aa"} <= {path.stem for path in SHIPPED}


def test_large_batches_have_the_same_tokens(tmp_path):
    plan = make(contests.read(ROOT / "configs/contest/large_batch.toml"), tmp_path)
    train = [job.config.train for job in plan.jobs]
    assert {t.total_steps * t.batch_tokens for t in train} == {4768 * 524288}
    assert {t.batch_tokens for t in train} == {524288, 4 * 524288, 16 * 524288}


def test_shakespeare_schedules_have_the_studys_rates(tmp_path):
    """Formulas of the study's text, worked here by hand; its cosine warms up from 0, ours from
    1/10, and its one_cycle has its peak one update later.
    """
    plan = make(contests.read(ROOT / "configs/contest/schedules_shakespeare.toml"), tmp_path)
    factors = {job.arm: tiny.factors(job) for job in plan.jobs}
    steps = range(50)
    assert factors["constant"] == pytest.approx([1] * 50)
    assert factors["multistep"] == pytest.approx(
        [0.95 ** ((t >= 15) + (t >= 30) + (t >= 45)) for t in steps]
    )
    assert factors["exponential"] == pytest.approx([0.95**t for t in steps])
    assert factors["linear"] == pytest.approx([1 - t / 50 for t in steps])
    assert factors["polynomial"] == pytest.approx([0.95 * (1 - t / 50) ** 2 + 0.05 for t in steps])
    assert factors["cyclic"] == pytest.approx([0.1 + 0.9 * t / 50 for t in steps])
    assert factors["cosine"][9] == 1
    assert factors["cosine"][-1] * 6e-4 == pytest.approx(6.083e-5, rel=1e-3)
    assert factors["cosine_warm_restarts"][9::10] == pytest.approx([7.321e-5 / 6e-4] * 5, rel=1e-3)


def test_arms_differ_in_their_flags_only(shards, tmp_path):
    contest = tiny.parse(shards, TWO | {"lion": {"configs": ["configs/optimizer/lion.toml"]}})
    for arm in contest.arms:
        config = load(contest.arguments(arm, (7, 8)))
        assert (config.seed, config.data_seed) == (7, 8)
    lion = load(contest.arguments(contest.arms[2], (7, 8))).optimizer
    assert lion.name == "lion"
    assert lion.hyperparameters["betas"] == (0.9, 0.99)


def test_nested_tables_and_quoted_dots_say_the_same(shards):
    dotted = tiny.parse(shards, {"a": {"schedule.name": "wsd", "schedule.decay_steps": 0.5}})
    nested = tiny.parse(shards, {"a": {"schedule": {"name": "wsd", "decay_steps": 0.5}}})
    assert dotted.arms == nested.arms


@pytest.mark.parametrize("value", [1, 3e-4, 1e-5, True, "wsd", "1e-3", "true", [0.9, 0.95]])
def test_flags_read_back_as_they_were_written(value):
    config = load(["--optimizer.thing", flag(value)])
    given = config.optimizer.hyperparameters["thing"]
    assert given == (tuple(value) if isinstance(value, list) else value)
    assert type(given) is (tuple if isinstance(value, list) else type(value))


TUNED = {"tuning_seeds": [101], "tune": {"optimizer.lr": [1e-3, 3e-3]}}
MISTAKES = {
    "no baseline": (TWO, {"baseline": None}, "'contest.baseline' is missing"),
    "unknown baseline": (TWO, {"baseline": "cosin"}, "did you mean 'cosine'?"),
    "overlapping seeds": (TWO, TUNED | {"tuning_seeds": [101, 2]}, "seed 2 is used for tuning and"),
    "seed twice": (TWO, {"seeds": [1, 1]}, "has a seed twice"),
    "no seeds": (TWO, {"seeds": []}, "contest.seeds"),
    "misspelt arm key": ({"a": {"tunes": "b"}}, {}, "arm 'a': unknown key 'tunes'; did you mean"),
    "misspelt flag": ({"a": {"schedule.nme": "wsd"}}, {}, "arm 'a': unknown key 'schedule.nme'"),
    "misspelt section": ({"a": {"schedules.name": "wsd"}}, {}, "did you mean 'schedule"),
    "misspelt schedule": ({"a": {"schedule.name": "wds"}}, {}, "did you mean 'wsd'?"),
    "misspelt contest key": (TWO, {"seds": [1]}, "unknown key 'contest.seds'; did you mean"),
    "seed of an arm": ({"a": {"seed": 3}}, {}, "sets seed, which is the planner's"),
    "same run": ({"a": {}, "b": {}}, {}, "arms 'a' and 'b' are the same run"),
    "same run on other data": (
        {"a": {"data.dir": "x", "train.micro_batch_size": 2}, "b": {"data.dir": "y"}},
        {},
        "are the same run adamw-cosine-s1",
    ),
    "missing overlay": ({"a": {"configs": ["configs/optimizer/lino.toml"]}}, {}, "lion.toml"),
    "tuning without seeds": (TWO, {"tune": {"optimizer.lr": [1e-3]}}, "tuning_seeds is missing"),
    "seeds without tuning": (TWO, {"tuning_seeds": [101]}, "nothing is tuned"),
    "unequal trials": (
        {"a": {}, "b": {"schedule.name": "wsd", "tune": {"optimizer.lr": [1e-3]}}},
        TUNED,
        "unequal numbers of trials: a 2, b 1",
    ),
    "empty grid": (TWO, TUNED | {"tune": {"optimizer.lr": []}}, "give at least one value"),
    "tuned key of another": (TWO, TUNED | {"tune": {"optimizer.momentum": [0.9]}}, "momentum"),
    "bad value in the grid": (TWO, TUNED | {"tune": {"optimizer.lr": [1e-3, "big"]}}, "big"),
    "unequal seeds": ({"a": {}, "b": {"seeds": [3]}}, {}, "arm 'b' has 1 seeds of its own"),
    "schedule too long": ({"a": {"schedule.warmup_steps": 500}}, {}, "longer than the run"),
    "more polynomials than there are": (
        {
            "a": {"optimizer.name": "muon", "optimizer.orthogonalisation": "turbo"}
            | {"optimizer.ns_steps": 9}
        },
        {},
        "arm 'a': optimizer.ns_steps = 9: 'turbo' has 5 polynomials",
    ),
    "a wrapper that the optimizer refuses": (
        {"a": {"optimizer.name": "muown", "optimizer.wrap.hyperball.split_qkv": True}},
        {},
        "arm 'a': optimizer.wrap.hyperball: Muown keeps its own account",
    ),
    "batch does not divide": ({"a": {"train.batch_tokens": 1000}}, {}, "arm 'a': train.batch"),
    "name of a folder": (TWO, {"name": "../up"}, "names a folder"),
    "range": (
        TWO,
        {"tuning_seeds": [9], "search": {"trials": 2, "ranges": {"optimizer.lr": {"low": 1}}}},
        "high",
    ),
    "target below zero": (TWO, {"target": -1.0}, "contest.target = -1.0: should be greater than 0"),
    "at sign": ({"fast@2x": {}}, {}, "arm 'fast@2x': @ stands before a length"),
    "against nobody": (TWO | {"c": {"against": "wds"}}, {}, "against = 'wds' is no arm; did you"),
    "against itself": (TWO | {"c": {"against": "c"}}, {}, "c against c: no arm can be compared"),
    "in a circle": (
        TWO | {"c": {"against": "d"}, "d": {"against": "e"}, "e": {"against": "d"}},
        {},
        "d against e against d: no arm can be compared with itself",
    ),
    "baseline against": ({"a": {"against": "b"}, "b": {}}, {}, "remove its `against`"),
    "one data seed": (TWO, {"data_seeds": [7]}, "give at least two in data_seeds and in seeds"),
    "tuned on a data seed": (TWO, TUNED | {"data_seeds": [7, 101]}, "seed 101 is used for tuning"),
    "crossed with seeds of its own": (
        {"a": {}, "b": {"seeds": [3, 4]}},
        {"data_seeds": [7, 8]},
        "with contest.data_seeds all arms share contest.seeds",
    ),
    "fraction in a trunk": (
        {"wsd": {"schedule.name": "wsd"}},
        {"branches": {"arms": ["wsd"], "lengths": [10, 20]}},
        "give a number of updates",
    ),
    "a schedule by role in a trunk": (
        {
            "wsd": {"schedule.name": "wsd", "schedule.warmup_steps": 2}
            | {"schedule.roles.vector.name": "linear"}
        },
        {"branches": {"arms": ["wsd"], "lengths": [10, 20]}},
        "schedule.roles.vector is a second schedule, so the run cannot branch from a trunk",
    ),
    "no trunk": (
        {"cosine": {"schedule.warmup_steps": 2}},
        {"branches": {"arms": ["cosine"], "lengths": [10, 20]}},
        "cannot branch from a trunk",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_and_exit_code_2(mistake, shards, tmp_path, capsys):
    arms, head, said = MISTAKES[mistake]
    whole = tiny.table(shards, arms, **head)
    whole["contest"] = {k: v for k, v in whole["contest"].items() if v is not None}
    path = tmp_path / "contest.toml"
    path.write_text(tiny.tomli_w.dumps(whole))
    assert main([str(path), "--out", str(tmp_path / "runs"), "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert said in err
    assert not out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("executor", ["local", "slurm"])
@pytest.mark.parametrize(
    ("word", "count", "least"),
    [
        ("--jobs", 0, 1),
        ("--nproc", -1, 1),
        ("--nodes", 0, 1),
        ("--gpus-per-run", -2, 0),
        ("--runs-per-gpu", 0, 1),
    ],
)
def test_count_that_is_too_small_is_one_line_and_exit_code_2(
    executor, word, count, least, shards, tmp_path, capsys
):
    path = tiny.write(tmp_path / "c.toml", shards, TWO)
    words = ["--executor", executor, word, str(count), "--dry-run"]
    assert main([str(path), "--out", str(tmp_path / "runs"), *words]) == 2
    assert capsys.readouterr().err == f"error: {word} {count} should be {least} or more\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "slurm"], "--runs-per-gpu is for this machine's GPUs"),
        ([], "train.micro_batch_size = auto takes a GPU for itself; give its number"),
    ],
)
def test_runs_share_a_gpu_of_this_machine_with_sizes_of_their_own(
    words, said, shards, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    path = tiny.write(
        tmp_path / "c.toml", shards, {"adamw": {"train.micro_batch_size": "auto"}}, baseline="adamw"
    )
    command = [str(path), "--out", str(tmp_path / "runs"), "--dry-run", "--runs-per-gpu", "2"]
    assert main([*command, *words]) == 2
    assert said in capsys.readouterr().err


def test_two_arms_of_one_name_and_no_arms(shards):
    whole = tiny.table(shards, TWO)
    with pytest.raises(ConfigError, match="two arms are named 'wsd'"):
        contests.parse(whole | {"arm": [*whole["arm"], {"name": "wsd"}]}, "")
    with pytest.raises(ConfigError, match=r"no \[\[arm\]\]"):
        contests.parse({"contest": whole["contest"]}, "")


def test_misspelt_path_names_the_nearest(capsys):
    assert main(["configs/contest/quickstrat.toml"]) == 2
    assert "did you mean 'configs/contest/quickstart.toml'?" in capsys.readouterr().err


def test_one_seed_gives_a_notice_that_there_will_be_no_verdict(shards):
    assert "one seed gives no verdict" in tiny.parse(shards, TWO, seeds=[1]).notices[0]
    assert not tiny.parse(shards, TWO).notices


def test_missing_data_is_reported_once(shards, tmp_path, capsys):
    path = tiny.write(tmp_path / "c.toml", shards, TWO, settings={"data.dir": "nowhere"})
    assert main([str(path), "--out", str(tmp_path / "runs")]) == 2
    assert "no folder nowhere" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
