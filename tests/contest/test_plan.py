"""From a contest and what is on disk to the runs that are next."""

import json
import math
import signal

import pytest

from configs import ConfigError, load
from contest.attempts import killed_by
from contest.job import Job, resolved, state
from contest.local import Attempt, exit_code
from contest.plan import check, make, written
from contest.schema import Range, Search
from contest.search import Study
from contest.slots import Slot, slots
from contest.watch import table
from record import runlog
from report.judgement import judge
from report.sources import read
from tests.contest import tiny
from tests.jobs import ROOT
from train_gpt2 import main as train

TWO = {"cosine": {}, "wsd": {"schedule.name": "wsd"}}
GRID = {"tuning_seeds": [101, 102], "extend": 0, "tune": {"optimizer.lr": [1e-3, 2e-3, 4e-3]}}


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    monkeypatch.chdir(ROOT)


def trials(plan, arm):
    """Tuning runs of an arm by learning rate."""
    found: dict[float, list[Job]] = {}
    for job in plan.jobs:
        if (job.role, job.arm) == ("tuning", arm):
            found.setdefault(job.trial["optimizer.lr"], []).append(job)
    return found


def test_without_tuning_every_arm_runs_with_every_seed(shards, tmp_path):
    plan = make(tiny.parse(shards, TWO), tmp_path)
    rows = [(job.arm, job.seed, job.role) for job in plan.jobs]
    assert rows == [
        ("cosine", 1, "report"), ("wsd", 1, "report"),
        ("wsd", 2, "report"), ("cosine", 2, "report"),
    ]  # fmt: skip
    assert len({job.id for job in plan.jobs}) == 4
    for job in plan.jobs:
        assert job.directory == tmp_path / "tiny" / job.config.run_name
        assert job.words()[-6:] == [
            "--log.dir", str(tmp_path / "tiny"), "--log.group", "tiny", "--log.job_type", job.arm,
        ]  # fmt: skip


def test_folders_of_an_earlier_version_are_named_and_not_taken_for_these_runs(shards, tmp_path):
    contest = tiny.parse(shards, TWO)
    first, *_ = make(contest, tmp_path).jobs
    former = first.directory.with_name(first.config.former_name)
    former.mkdir(parents=True)
    plan = make(contest, tmp_path)
    assert [state(job) for job in plan.jobs] == ["waiting"] * 4
    (problem,) = plan.problems
    assert f"micro-batch: 1 ({former.name}, ...)" in problem
    tiny.ended(first, 2.0)  # made anew
    assert make(contest, tmp_path).problems == []


def test_every_arm_is_first_for_one_of_the_seeds(shards, tmp_path):
    arms = {name: {"schedule.name": name} for name in ("cosine", "wsd", "linear")}
    plan = make(tiny.parse(shards, arms, seeds=[1, 2, 3, 4]), tmp_path)
    order = [job.arm for job in plan.jobs]
    assert [order[i : i + 3] for i in range(0, 12, 3)] == [
        ["cosine", "wsd", "linear"],
        ["wsd", "linear", "cosine"],
        ["linear", "cosine", "wsd"],
        ["cosine", "wsd", "linear"],
    ]
    assert [job.seed for job in plan.jobs] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_data_seeds_are_crossed_with_seeds(shards, tmp_path):
    contest = tiny.parse(shards, TWO, data_seeds=[7, 8, 9], **GRID | {"tuning_seeds": [101]})
    for job in make(contest, tmp_path).jobs:
        assert (job.config.seed, job.config.data_seed) == (101, 101)
        tiny.ended(job, 2.0)
    plan = make(contest, tmp_path)
    for arm in TWO:
        own = [job for job in plan.jobs if (job.arm, job.role) == (arm, "report")]
        assert [(job.seed, job.data_seed) for job in own] == [
            (seed, data) for seed in (1, 2) for data in (7, 8, 9)
        ]
        assert all(
            (job.config.seed, job.config.data_seed) == (job.seed, job.data_seed) for job in own
        )
    plan.write()
    assert written(contest, tmp_path).jobs == plan.jobs
    drawn = table(plan, {job.id: "waiting" for job in plan.jobs})
    assert [c.header for c in drawn.columns][2:5] == [f"seed 1, data {d}" for d in (7, 8, 9)]


def test_an_arm_may_have_a_baseline_of_its_own(shards, tmp_path):
    """And that one another: the chain ends at the baseline of all."""
    arms = {
        "adamw": {},
        "adamw-x4": {"train.batch_tokens": 2048},
        "lion-x4": {
            "configs": ["configs/optimizer/lion.toml"],
            "train.batch_tokens": 2048,
            "against": "adamw-x4",
        },
    }
    plan = make(tiny.parse(shards, arms), tmp_path)
    plan.write()
    study = read([str(plan.home)])
    assert {arm: study.baseline_of(arm) for arm in arms} == {
        "adamw": "adamw", "adamw-x4": "adamw", "lion-x4": "adamw-x4",
    }  # fmt: skip
    compared = {row.arm: row.comparison.baseline for row in judge(study).rows if row.comparison}
    assert compared == {"adamw-x4": "adamw", "lion-x4": "adamw-x4"}


def test_a_run_that_two_arms_share_counts_for_the_first_of_the_file(shards, tmp_path):
    """Whatever the order of their start: that changes from seed to seed."""
    tune = {
        "a": {"tune": {"optimizer.lr": [1e-3, 2e-3]}},
        "b": {"tune": {"optimizer.lr": [2e-3, 4e-3]}},
    }
    head = {"tuning_seeds": [101], "tune": {"optimizer.lr": [1e-3, 2e-3]}}
    contest = tiny.parse(shards, tune, **head)
    for job in make(contest, tmp_path).jobs:
        tiny.ended(job, 2.0 if job.trial["optimizer.lr"] == 2e-3 else 3.0)
    plan = make(contest, tmp_path)
    assert [(job.arm, job.seed) for job in plan.jobs if job.role == "report"] == [
        ("a", 1),
        ("a", 2),
    ]
    assert all("it counts for 'a' only" in problem for problem in plan.problems)


def test_plan_file_names_runs_and_those_that_wait(shards, tmp_path):
    plan = make(tiny.parse(shards, TWO, **GRID, target=2.5), tmp_path)
    plan.write()
    file = json.loads((tmp_path / "tiny/plan.json").read_text())
    assert (file["baseline"], file["target"], file["arms"]) == ("cosine", 2.5, [*TWO])
    # three trials and, since 3e-3 is none of them, the arm's own; two tuning seeds
    assert len(file["runs"]) == 2 * 4 * 2
    assert {run["role"] for run in file["runs"]} == {"tuning"}
    assert all(run["directory"] == f"tuning/{run['id']}" for run in file["runs"])
    assert file["pending"] == [
        {"arm": arm, "seed": seed} for seed in (1, 2) for arm in ("cosine", "wsd")
    ]


def test_plan_file_names_the_keys_that_the_contest_declares_for_an_arm(shards, tmp_path):
    sgd = {
        "configs": ["configs/optimizer/sgd.toml"],
        "train.batch_tokens": 1024,
        "tune": {"train.grad_clip": [0.5, 1.0, 2.0]},
    }
    plan = make(tiny.parse(shards, {"adamw": {}, "sgd": sgd}, **GRID), tmp_path)
    plan.write()
    declared = json.loads((plan.home / "plan.json").read_text())["declared"]
    assert declared["adamw"] == ["optimizer.lr"]
    assert {"optimizer.name", "train.batch_tokens", "train.grad_clip"} < {*declared["sgd"]}
    assert read([str(plan.home)]).declared == {arm: (*keys,) for arm, keys in declared.items()}


def test_best_mean_over_tuning_seeds_goes_to_the_reporting_runs(shards, tmp_path):
    contest = tiny.parse(shards, TWO, **GRID)
    losses = {1e-3: (2.0, 2.4), 2e-3: (1.9, 2.7), 4e-3: (2.1, 2.2), 3e-3: (1.0, 1.0)}
    for lr, jobs in trials(make(contest, tmp_path), "cosine").items():
        for job, loss in zip(jobs, losses[lr], strict=True):
            tiny.ended(job, loss)
    plan = make(contest, tmp_path)
    tuned = plan.tuned["cosine"]
    assert tuned.best == {"optimizer.lr": 4e-3}, "the untuned setting is none of the candidates"
    assert tuned.row().best_loss == pytest.approx(2.15)
    row = tuned.row()
    assert row.edges == ("optimizer.lr",)
    assert row.default == {"optimizer.lr": 3e-3}
    assert row.default_loss == 1.0
    assert row.gap == pytest.approx(1.0 - 2.15)
    assert [t.candidate for t in row.trials] == [True, True, True, False]
    assert [t.default for t in row.trials] == [False, False, False, True]
    report = [job for job in plan.jobs if job.role == "report"]
    assert [(job.arm, job.seed) for job in report] == [("cosine", 1), ("cosine", 2)]
    assert all(job.config.optimizer.hyperparameters["lr"] == 4e-3 for job in report)
    assert {run.arm for run in plan.pending} == {"wsd"}


def test_diverged_trial_loses_and_a_failed_one_is_left_out(shards, tmp_path):
    contest = tiny.parse(shards, {"cosine": {}}, **GRID | {"tuning_seeds": [101]})
    found = trials(make(contest, tmp_path), "cosine")
    tiny.ended(found[1e-3][0], 2.0)
    tiny.ended(found[2e-3][0], 0.1, diverged=True)  # finished, and yet
    tiny.failed(found[4e-3][0])
    tuned = make(contest, tmp_path).tuned["cosine"]
    assert tuned.best == {"optimizer.lr": 1e-3}
    rows = {row.setting["optimizer.lr"]: row for row in tuned.row().trials}
    assert (rows[2e-3].status, rows[2e-3].loss) == ("diverged", None)
    assert (rows[4e-3].status, rows[4e-3].loss) == ("failed", None)


def test_arm_whose_trials_all_failed_reports_nothing_and_the_others_do(shards, tmp_path):
    contest = tiny.parse(shards, TWO, **GRID)
    plan = make(contest, tmp_path)
    for jobs in trials(plan, "wsd").values():
        for job in jobs:
            tiny.ended(job, None, "diverged")
    for jobs in trials(plan, "cosine").values():
        for job in jobs:
            tiny.ended(job, 2.0)
    plan = make(contest, tmp_path)
    assert {job.arm for job in plan.jobs if job.role == "report"} == {"cosine"}
    assert not plan.pending
    assert plan.problems == [
        "arm 'wsd': all 3 trials failed or diverged; it has no setting to report with"
    ]


def test_arms_may_tune_other_values_and_other_keys(shards, tmp_path):
    prodigy = {
        "configs": ["configs/optimizer/prodigy.toml"],
        "tune": {"optimizer.d_coef": [0.5, 1.0, 2.0]},
    }
    contest = tiny.parse(shards, {"adamw": {}, "prodigy": prodigy}, **GRID)
    check(contest, tmp_path / "tiny")
    settings = [job.trial for job in make(contest, tmp_path).jobs if job.arm == "prodigy"]
    assert settings[::2] == [{"optimizer.d_coef": c} for c in (0.5, 1.0, 2.0)]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes"])
def test_search_remembers_its_trials_whoever_asks(shards, tmp_path, sampler):
    low_high = {"low": 1e-4, "high": 1e-1, "log": True}
    search = Search(sampler=sampler, trials=6, ranges={"lr": Range(**low_high)})
    arm = tiny.parse(
        shards, {"a": {}}, tuning_seeds=[9], search={"trials": 6, "ranges": {"lr": low_high}}
    ).arms[0]
    done = {}

    def status(setting):
        return done.get(setting["lr"], ("missing", math.inf))

    assert Study(search, arm, tmp_path).settings(status, 0) == []
    assert not list(tmp_path.iterdir()), "looking leaves nothing behind"
    for _ in range(6):
        begun = Study(search, arm, tmp_path).settings(status, 2)
        assert Study(search, arm, tmp_path).settings(status, 2) == begun, "none is asked for twice"
        missing = [setting["lr"] for setting in begun if setting["lr"] not in done]
        assert len(missing) == min(2, 6 - len(done))
        diverged = missing[0] > 3e-2
        done[missing[0]] = ("diverged", math.inf) if diverged else ("finished", missing[0])
    assert len(done) == 6
    assert all(1e-4 <= lr <= 1e-1 for lr in done)


def test_search_fills_the_ledger_and_runs_the_untuned_setting_beside_it(shards, tmp_path):
    ranges = {"optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    search = {"sampler": "random", "trials": 3, "ranges": ranges}
    contest = tiny.parse(shards, {"cosine": {}}, tuning_seeds=[101], search=search, extend=0)
    for _ in range(3):  # one open trial at a time
        for job in make(contest, tmp_path, ask=1).jobs:
            tiny.ended(job, job.trial["optimizer.lr"])
    plan = make(contest, tmp_path, ask=1)
    tuned = plan.tuned["cosine"]
    assert [trial.candidate for trial in tuned.trials] == [True, True, True, False]
    rates = [trial.setting["optimizer.lr"] for trial in tuned.trials]
    assert tuned.best == {"optimizer.lr": min(rates[:3])}
    assert [job.seed for job in plan.jobs if job.role == "report"] == [1, 2]
    plan.write()
    ledger = json.loads((tmp_path / "tiny/tuning.json").read_text())
    assert (ledger["method"], ledger["sampler"], ledger["trials_per_arm"]) == (
        "optuna",
        "random",
        3,
    )


def test_a_arms_with_seeds_of_their_own_are_the_same_setting(shards, tmp_path):
    contest = tiny.parse(shards, {"a": {}, "b": {"seeds": [3, 4]}})
    check(contest, tmp_path / "tiny")
    plan = make(contest, tmp_path)
    tables = [job.config.table() | {"seed": 0, "data_seed": 0} for job in plan.jobs]
    assert all(table == tables[0] for table in tables)
    assert len({job.id for job in plan.jobs}) == 4
    assert contest.notices == ("seeds of their own: b; these arms are compared unpaired",)


def test_branches_share_a_trunk_until_their_cool_down(shards, tmp_path):
    wsd = {"schedule.name": "wsd", "schedule.warmup_steps": 3, "schedule.decay_steps": 0.25}
    arms = {"cosine": {}, "wsd": wsd, "linear": wsd | {"schedule.decay_type": "linear"}}
    branches = {"arms": ["wsd", "linear"], "lengths": [20, 40]}
    plan = make(tiny.parse(shards, arms, branches=branches, seeds=[1]), tmp_path)
    trunk = [job for job in plan.jobs if job.role == "trunk"]
    # Constant for 0.75 of the run, and at the first update of the cool-down, where it is still 1.
    assert [job.length for job in trunk] == [16, 31]
    assert [job.after for job in trunk] == [None, trunk[0].id]
    report = {job.arm: job for job in plan.jobs if job.role == "report"}
    assert [*report] == ["cosine@20", "cosine@40", "wsd@20", "wsd@40", "linear@20", "linear@40"]
    for name, job in report.items():
        source = {"20": trunk[0], "40": trunk[1]}[name[-2:]]
        assert job.after == (None if "cosine" in name else source.id)
        if job.after:
            shared = len(tiny.factors(source))
            assert tiny.factors(job)[:shared] == tiny.factors(source)
            assert tiny.factors(job)[shared] != 1


@pytest.mark.parametrize(
    ("warmup", "message"),
    [
        (
            1.0,
            "arm 'wsd@20': optimizer.warmup_steps = 1.0 is a fraction of the run, so lengths share",
        ),
        (
            17,
            "arm 'wsd@20': on the way to a branch optimizer.warmup_steps = 17 is longer",
        ),
        (16, None),
    ],
)
def test_a_trunk_has_the_optimizer_of_its_runs(shards, tmp_path, warmup, message):
    """The first segment has 16 updates, the runs 20 and 40."""
    wsd = {"schedule.name": "wsd", "schedule.warmup_steps": 3, "schedule.decay_steps": 0.25}
    wsd |= {"optimizer.name": "ademamix", "optimizer.warmup_steps": warmup}
    branches = {"arms": ["wsd"], "lengths": [20, 40]}
    contest = tiny.parse(shards, {"cosine": {}, "wsd": wsd}, branches=branches, seeds=[1])
    if message is None:
        make(contest, tmp_path)
        return
    with pytest.raises(ConfigError, match=message) as caught:
        make(contest, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_hyperparameter_longer_than_the_run_is_refused_before_a_run_starts(shards, tmp_path):
    long = {"optimizer.name": "ademamix", "optimizer.warmup_steps": 19073}
    contest = tiny.parse(shards, {"adamw": {}, "ademamix": long})
    with pytest.raises(ConfigError, match=r"optimizer.warmup_steps = 19073 is longer"):
        check(contest, tmp_path / "tiny")


def test_state_is_read_from_the_disk(shards, tmp_path):
    job = make(tiny.parse(shards, TWO), tmp_path).jobs[0]
    assert state(job) == "waiting"
    tiny.failed(job, code=-9)
    assert state(job) == "waiting", "killed from outside: the same command goes on"
    tiny.failed(job, code=2)
    assert state(job) == "failed"
    with runlog.lock(job.directory, 0):
        assert state(job) == "running"
    tiny.failed(job, code=-15)
    assert state(job) == "stopped"
    for status in ("stopped", "diverged", "finished"):
        tiny.ended(job, 2.0, status)
        assert state(job) == status


def test_slots_share_out_gpus_and_cores():
    def places(gpus, cores, **options):
        found = slots(gpus, cores, **options)
        return [(slot.environment["CUDA_VISIBLE_DEVICES"], slot.nproc) for slot in found]

    four = ["0", "1", "GPU-2", "3"]
    assert places(four, 8) == [(gpu, 1) for gpu in four]
    assert places(four, 8, gpus_per_run=2) == [("0,1", 2), ("GPU-2,3", 2)]
    assert places(four, 8, nproc=4) == [("0,1,GPU-2,3", 4)]
    assert places(four, 8, jobs=1) == [("0", 1)]
    assert places(four, 8, gpus_per_run=0, jobs=2) == [("", 1), ("", 1)]
    assert places(["0", "1"], 8, runs_per_gpu=2) == [("0", 1), ("1", 1), ("0", 1), ("1", 1)]
    assert [s.environment["OMP_NUM_THREADS"] for s in slots(["0"], 8, runs_per_gpu=4)] == ["2"] * 4
    threads = [slot.environment["OMP_NUM_THREADS"] for slot in slots([], 8, jobs=3)]
    assert threads == ["2", "2", "2"]
    assert len(slots([], 8)) == 8
    assert len(slots([], 8, nproc=2)) == 4
    with pytest.raises(
        ValueError, match="--jobs 3 with --gpus-per-run 2 needs 6 GPUs, there is room on 4"
    ):
        slots(four, 8, jobs=3, gpus_per_run=2)
    with pytest.raises(ValueError, match="--runs-per-gpu 2 with --gpus-per-run 2 and"):
        slots(four, 8, gpus_per_run=2, runs_per_gpu=2)
    with pytest.raises(ValueError, match="--runs-per-gpu 2 needs a GPU, and none is"):
        slots([], 8, runs_per_gpu=2)


def test_exit_code_of_a_rank_killed_by_a_signal_is_minus_that_signal(shards, tmp_path):
    job = make(tiny.parse(shards, TWO), tmp_path).jobs[0]
    attempt = Attempt(job, Slot("", {}, 2), None, "", 0.0, 0)
    codes = {0: 0, 1: 1, 2: 2, 3: 3, 137: -signal.SIGKILL, -9: -signal.SIGKILL}
    assert {code: exit_code(code, attempt) for code in codes} == codes
    attempt.stop_requested = True
    assert exit_code(1, attempt) == -signal.SIGTERM
    assert exit_code(0, attempt) == 0


def test_signal_that_ended_a_rank_is_found_in_torchruns_words():
    said = ["  rank      : 1 (local_rank: 1)", "  exitcode  : -9 (pid: 4711)"]
    assert killed_by(said) == -signal.SIGKILL
    ended_for_it = ["  exitcode  : -15 (pid: 4712)", "Root Cause (first observed failure):"]
    assert killed_by(ended_for_it + said) == -signal.SIGKILL
    assert killed_by(["  exitcode  : 2 (pid: 4711)"]) is None


def test_a_plan_that_was_written_is_read_back(shards, tmp_path):
    wsd = {"schedule.name": "wsd", "schedule.warmup_steps": 3}
    arms, branches = {"cosine": {}, "wsd": wsd}, {"arms": ["wsd"], "lengths": [20, 40]}
    contest = tiny.parse(shards, arms, branches=branches)
    assert written(contest, tmp_path) is None, "never written"
    plan = make(contest, tmp_path)
    plan.write()
    again = written(contest, tmp_path)
    assert again.jobs == plan.jobs
    assert again.arms == ["cosine@20", "wsd@20", "cosine@40", "wsd@40"]
    other = tiny.parse(shards, arms | {"linear": {"schedule.name": "linear"}}, branches=branches)
    assert written(other, tmp_path) is None


def test_a_report_compares_arms_of_one_length(shards, tmp_path):
    wsd = {"schedule.name": "wsd", "schedule.warmup_steps": 3}
    arms, branches = {"cosine": {}, "wsd": wsd}, {"arms": ["wsd"], "lengths": [20, 40]}
    plan = make(tiny.parse(shards, arms, branches=branches), tmp_path)
    plan.write()
    judgement = judge(read([str(plan.home)]))
    compared = {row.arm: row.comparison.baseline for row in judgement.rows if row.comparison}
    assert compared == {"wsd @ 20": "cosine @ 20", "wsd @ 40": "cosine @ 40"}


def test_a_class_edited_during_a_contest_is_refused_and_new_runs_are_planned_next_time(
    shards, tmp_path, monkeypatch, capsys
):
    source = "import torch\nclass Mine(torch.optim.SGD):\n    pass\n"
    (tmp_path / "edited_lab.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    contest = tiny.parse(shards, {"mine": {"optimizer.name": "edited_lab.Mine"}}, seeds=[1])
    (before,) = make(contest, tmp_path).jobs
    assert load(before.words()).versions == before.config.versions
    (tmp_path / "edited_lab.py").write_text(source + "# edited\n")
    assert train(before.words()) == 2
    assert "edited_lab.Mine has changed" in capsys.readouterr().err
    resolved.cache_clear()  # as in another process
    (after,) = make(contest, tmp_path).jobs
    assert after.id != before.id
