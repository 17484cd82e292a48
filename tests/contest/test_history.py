"""history.jsonl: what a planner writes of its plan, and what the report makes of it."""

import json
import shutil

import pytest
import tomli_w

from contest import file as contests
from contest.history import note
from contest.job import resolved
from contest.plan import make
from record.contest import PlanFile
from record.history import HISTORY, read
from report import sources
from report.history import read as told
from report.judgement import judge
from tests.contest import tiny
from tests.jobs import ROOT

TWO = {"cosine": {}, "wsd": {"schedule.name": "wsd"}}


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    monkeypatch.chdir(ROOT)


def planned(shards, out, arms=TWO, text=None, **head):
    """A planner begins: the plan, after its history and plan.json are written."""
    table = tiny.table(shards, arms, **head)
    plan = make(contests.parse(table, text or tomli_w.dumps(table)), out)
    note(plan)
    plan.write()
    return plan


def end(*jobs):
    """Records of runs that have ended, with the configuration that says whose they are."""
    for job in jobs:
        tiny.ended(job, 2.0)
        log = {"job_type": job.contestant}
        text = tomli_w.dumps({"seed": job.seed, "data_seed": job.data_seed, "log": log})
        (job.directory / "config.toml").write_text(text)


def lines(out):
    """What the report says, without the times."""
    said = told(out / "tiny", PlanFile.read(out / "tiny"))
    return [line.partition(" UTC: ")[2] or line for line in said.lines], said.late


def test_first_entry_is_written_before_the_first_run(shards, tmp_path):
    plan = planned(shards, tmp_path)
    (entry,), problems = read(plan.home)
    assert not problems
    assert entry.text == plan.contest.text
    assert entry.seeds == {"cosine": (1, 2), "wsd": (1, 2)}
    assert (entry.runs, entry.ended) == (4, {})
    assert json.loads((plan.home / "plan.json").read_text())["history"] == entry.check
    said, late = lines(tmp_path)
    assert said[0].startswith("planned before the first run: 2 arms, 4 reporting runs; commit ")
    assert not late


def test_same_plan_adds_no_entry(shards, tmp_path):
    plan = planned(shards, tmp_path)
    end(*plan.jobs)
    planned(shards, tmp_path)
    assert len(read(plan.home)[0]) == 1


def test_seeds_added_after_results_are_told_with_the_results_that_were_there(shards, tmp_path):
    plan = planned(shards, tmp_path, seeds=[1, 2, 3])
    end(*plan.jobs)
    planned(shards, tmp_path, seeds=[1, 2, 3, 4, 5])
    said, late = lines(tmp_path)
    assert said[1:] == ["seeds 4, 5 added, after 6 results were there (seeds 1-3)"]
    assert len(late) == 1


def test_every_change_has_its_words(shards, tmp_path):
    planned(shards, tmp_path, target=2.5, seeds=[1, 2])
    arms = {"cosine": {"optimizer.lr": 1e-3}, "linear": {"schedule.name": "linear"}}
    planned(shards, tmp_path, arms, target=2.4, seeds=[2])
    said, late = lines(tmp_path)
    assert said[1:] == [
        f"{change}, before any reporting run had ended"
        for change in (
            "arm wsd removed",
            "arm linear added",
            "seed 1 removed",
            "target changed from 2.5 to 2.4",
            "arm cosine: optimizer.lr = 0.001 added",
        )
    ]
    assert not late, "nobody had seen a result"


def test_a_change_of_comments_is_not_held_against_the_contest(shards, tmp_path):
    plan = planned(shards, tmp_path)
    end(plan.jobs[0])
    planned(shards, tmp_path, text=f"# why\n{plan.contest.text}")
    said, late = lines(tmp_path)
    assert said[1].startswith("only comments or the layout of the contest file changed, after 1 ")
    assert not late


def test_a_changed_overlay_is_found_though_the_contest_file_is_the_same(shards, tmp_path):
    overlay = tmp_path / "mine.toml"
    overlay.write_text("[train]\ngrad_clip = 0.5\n")
    arms = {"cosine": {}, "mine": {"configs": [str(overlay)]}}
    plan = planned(shards, tmp_path, arms)
    end(*plan.jobs)
    overlay.write_text("[train]\ngrad_clip = 0.7\n")
    resolved.cache_clear()  # another planner is another process
    planned(shards, tmp_path, arms)
    said, _ = lines(tmp_path)
    assert said[1] == (
        "the files that mine is made of changed, after 4 results were there (seeds 1, 2)"
    )


def test_results_of_an_arm_that_was_removed_still_count_as_seen(shards, tmp_path):
    plan = planned(shards, tmp_path)
    end(*(job for job in plan.jobs if job.arm == "wsd"))
    planned(shards, tmp_path, {"cosine": {}, "linear": {"schedule.name": "linear"}})
    assert read(plan.home)[0][1].ended == {"wsd": (1, 2)}


def test_an_old_contest_says_that_its_history_is_not_known(shards, tmp_path):
    plan = make(tiny.parse(shards, TWO), tmp_path)
    plan.write()
    said, late = lines(tmp_path)
    assert said == ["the plan's history is not known: there is no history.jsonl"]
    assert not late
    end(*plan.jobs)
    planned(shards, tmp_path, seeds=[1, 2, 3])
    (first,), late = lines(tmp_path)
    begins = "the history begins after 4 results were there (seeds 1, 2): what was planned before"
    assert first.startswith(f"{begins} is not known (now: 2 arms, 6 reporting runs; ")
    assert len(late) == 1


def three_entries(shards, out):
    for seeds in ([1], [1, 2], [1, 2, 3]):
        plan = planned(shards, out, seeds=seeds)
    return plan.home / HISTORY


def test_an_edited_line_does_not_fit_its_check(shards, tmp_path):
    path = three_entries(shards, tmp_path)
    text = path.read_text().splitlines()
    for number in range(3):
        edited = text.copy()
        edited[number] = edited[number].replace('"ended": {}', '"ended": {"wsd": [1]}')
        path.write_text("\n".join(edited) + "\n")
        said, late = lines(tmp_path)
        assert said[0].startswith(f"history.jsonl: line {number + 1} does not fit its check")
        assert late[0] == said[0]


@pytest.mark.parametrize("gone", [0, 1])
def test_a_line_that_was_removed_leaves_the_next_one_without_its_check(shards, tmp_path, gone):
    path = three_entries(shards, tmp_path)
    text = path.read_text().splitlines()
    path.write_text("\n".join(text[:gone] + text[gone + 1 :]) + "\n")
    assert f"line {gone + 1} does not fit its check" in lines(tmp_path)[0][0]


def test_last_line_that_was_removed_is_missed_and_the_next_planner_says_so(shards, tmp_path):
    path = three_entries(shards, tmp_path)
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    removed = "history.jsonl: the entry that plan.json names was removed"
    assert lines(tmp_path)[0][0] == removed
    planned(shards, tmp_path, seeds=[1, 2, 3])
    said, late = lines(tmp_path)
    assert removed not in said
    assert said[-1] == "earlier entries had been removed: what they planned is not known"
    assert said[-1] in late[-1]


def test_a_history_that_was_deleted_is_missed(shards, tmp_path):
    three_entries(shards, tmp_path).unlink()
    said, late = lines(tmp_path)
    assert said == ["the plan's history is not known: history.jsonl was removed"]
    assert [*late] == said


def test_a_line_that_a_crash_cut_off_is_named_and_the_next_entry_is_whole(shards, tmp_path):
    path = three_entries(shards, tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    planned(shards, tmp_path, seeds=[1, 2, 3, 4])
    entries, problems = read(path.parent)
    assert problems == ["history.jsonl: line 3 is damaged and left out"]
    assert [len(entry.seeds["wsd"]) for entry in entries] == [1, 2, 4]


def test_report_is_provisional_until_every_planned_run_has_ended(shards, tmp_path):
    grid = {"tuning_seeds": [101], "tune": {"optimizer.lr": [3e-3]}}
    planned(shards, tmp_path, **grid)
    study = sources.read([str(tmp_path / "tiny")])
    assert judge(study).provisional == "4 of 4 planned runs have not ended"
    assert study.history[0].endswith("UTC: " + lines(tmp_path)[0][0])
    plan = make(tiny.parse(shards, TWO), tmp_path)
    shutil.rmtree(tmp_path / "tiny")
    plan.write()
    for number, job in enumerate(plan.jobs):
        assert sources.read([str(plan.home)]).provisional.startswith(f"{4 - number} of 4 planned")
        end(job)
    assert sources.read([str(plan.home)]).provisional == ""
