"""Whose seconds count: other runs, the load, and runs that were trained side by side."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from record.contest import Timing
from report.cost_tables import seconds
from report.judgement import judge
from report.page import page
from report.seconds import NOT_RECORDED, SIDE_BY_SIDE, with_shared
from report.sections import markdown
from report.sources import read
from report.study import Study
from report.tables import sections
from report.verdict import values_of
from tests.report.studies import a_run, a_study, rows

START = datetime(2026, 1, 1, tzinfo=UTC)
ALONE = {"other_runs": 0, "load_average": 1.9, "gpus": []}


def launch(begin=0, end=10, *, host="a", at_start=ALONE, at_end=ALONE, threads=2, ranks=None):
    """One entry of `launches`; times in seconds."""
    found = {"host": host, "environment": {"threads": threads, "torchrun": {}}}
    if ranks:
        found["environment"]["torchrun"] = {"LOCAL_WORLD_SIZE": str(ranks)}
    times = {"started": begin, "ended": end}
    found |= {k: (START + timedelta(seconds=v)).isoformat() for k, v in times.items()}
    states = {"at_start": at_start, "at_end": at_end}
    return found | {name: state for name, state in states.items() if state}


def a_launched(name, *launches, **other):
    run = a_run(name, 1, 3.0, facts={"launches": list(launches)} | other.pop("facts", {}), **other)
    return replace(run, name=name, source=name)


def reason(*launches):
    (run,) = with_shared([a_launched("x", *launches)])
    return run.shared


def test_a_run_that_had_its_machine_for_itself_counts():
    assert reason(launch()) is None
    assert reason(launch(), launch(20, 30)) is None


def test_other_runs_at_either_end_of_any_launch_count_against_it():
    one = launch(at_end=ALONE | {"other_runs": 1})
    assert reason(launch(20, 30), one) == "1 other run on its machine"
    many = launch(at_start=ALONE | {"other_runs": 7})
    assert reason(many) == "7 other runs on its machine"


def test_a_profiled_launch_counts_against_a_run():
    profiled = launch(20, 30)
    profiled["environment"]["profiled_updates"] = 5
    assert reason(launch(), profiled) == "some of its updates were profiled, which takes time"
    profiled["environment"]["profiled_updates"] = 0
    assert reason(launch(), profiled) is None


@pytest.mark.parametrize(
    "entry",
    [
        launch(at_start=None, at_end=None),  # an older version
        launch(at_end=None),  # killed
        launch(at_start=ALONE | {"other_runs": None}),  # a system that lists no processes
    ],
)
def test_what_is_not_known_does_not_count(entry):
    assert reason(entry) == NOT_RECORDED
    assert with_shared([a_launched("x")])[0].shared == NOT_RECORDED


def test_load_above_the_threads_of_the_run_counts_against_it():
    assert reason(launch(at_end=ALONE | {"load_average": 2.5})) is None
    said = "a load of 7.2, with 2 threads of its own"
    assert reason(launch(at_end=ALONE | {"load_average": 7.2})) == said
    assert reason(launch(at_end=ALONE | {"load_average": 7.2}, ranks=4)) is None
    assert reason(launch(at_start=ALONE | {"load_average": 9.0})) is None, "of the run before it"


def test_runs_whose_launches_overlap_on_one_host_were_side_by_side():
    runs = [
        a_launched("first", launch(0, 10)),
        a_launched("second", launch(5, 8)),
        a_launched("elsewhere", launch(5, 8, host="b")),
        a_launched("third", launch(10, 20)),
        a_launched("resumed", launch(20, 30), launch(25, 40)),
    ]
    shared = {run.name: run.shared for run in with_shared(runs)}
    assert shared == {
        "first": SIDE_BY_SIDE,
        "second": SIDE_BY_SIDE,
        "elsewhere": None,
        "third": None,
        "resumed": None,
    }


def test_a_branch_has_the_seconds_of_its_trunk():
    busy = launch(at_end=ALONE | {"other_runs": 2})
    runs = [
        a_launched("trunk-1", busy, role="trunk"),
        a_launched("trunk-2", launch(20, 30), role="trunk",
                   facts={"branched_from": {"run": "trunk-1", "step": 5}}),
        a_launched("branch", launch(40, 50),
                   facts={"branched_from": {"run": "trunk-2", "step": 9}}),
        a_launched("other", launch(60, 70), facts={"branched_from": {"run": "gone", "step": 9}}),
    ]  # fmt: skip
    shared = {run.name: run.shared for run in with_shared(runs)}
    assert shared["branch"] == "of its trunk: 2 other runs on its machine"
    assert shared["other"] is None


FINALS = {"base": {1: 3.5, 2: 3.5}, "arm": {1: 3.0, 2: 3.0}}


def sharing(*seeds, study=None):
    """A study in which the runs of those seeds shared their machine."""
    study = study or a_study(FINALS)
    runs = [replace(r, shared="why" if r.seed in seeds else None) for r in study.runs]
    return replace(study, runs=runs)


def test_seconds_of_runs_that_shared_a_machine_are_withheld():
    all_shared = rows(sharing(1, 2))["arm"]
    assert all_shared.speedups["seconds"].words == "withheld"
    assert all_shared.speedups["tokens"].words == "1.25 x"
    assert "seconds_to_target" not in all_shared.to_target
    assert "steps_to_target" in all_shared.to_target
    assert rows(sharing(1))["arm"].speedups["seconds"].words == "1.25 x", "of seed 2"


def test_costs_in_time_are_of_fair_runs_and_memory_of_all():
    numbers = {"final_val_loss": 3.0, "initial_val_loss": 5.5, "flops_per_token": 1}
    runs = [
        a_run("base", seed, 3.0,
              summary=numbers | {"step_ms_median": ms, "peak_memory_gib": gib, "mfu": 0.1 * seed})
        for seed, ms, gib in ((1, 50.0, 1.0), (2, 90.0, 2.0))
    ]  # fmt: skip
    study = sharing(2, study=Study("c", runs, "base", None, ["base"]))
    (row,) = judge(study).rows
    assert row.costs["step_ms_median"].high == 50
    assert row.costs["mfu"].high == 0.1
    assert row.costs["peak_memory_gib"].high == 2
    assert values_of(study, "base", "step_ms_median", False) == {(1, 1): 50}
    assert len(values_of(study, "base", "peak_memory_gib", False)) == 2


def test_section_says_of_each_arm_whose_seconds_count_and_why_not():
    study = sharing(2, study=a_study({"base": {1: 3.5, 2: 3.5}, "arm": {1: 3.0, 2: 3.0}}))
    times = {"base": (10.0, 12.0, 11.0), "arm": (22.0, 21.0, 23.0)}
    section = seconds(replace(study, step_ms=times))
    assert [line[1:] for line in section.tables[0].rows] == [
        ["1 of 2", "why (1)", "11.00 (10.00 to 12.00)", "1.000"],
        ["1 of 2", "why (1)", "22.00 (21.00 to 23.00)", "2.000"],
    ]
    assert seconds(study).tables[0].rows[0][3] == "not measured"
    assert seconds(a_study(FINALS)) is None, "nothing to say"


def test_page_of_a_contest_on_a_shared_machine_withholds_seconds_in_words(home):
    alone = read([str(home)])
    assert not any(run.shared for run in alone.runs)
    assert 'data-axis="seconds"' in page(alone, judge(alone), sections(alone, judge(alone), ""))
    for path in home.glob("*/record.json"):
        path.write_text(path.read_text().replace('"other_runs": 0', '"other_runs": 1'))
    study = read([str(home)])
    judgement = judge(study)
    tables = sections(study, judgement, "python -m report")
    text = markdown(judgement, tables)
    assert "| wsd | 0 of 2 | 1 other run on its machine (2) | not measured |" in text
    (line,) = next(s for s in tables if s.id == "speedups").tables[0].rows
    assert [*line][3] == "withheld"
    drawn = page(study, judgement, tables)
    assert 'data-axis="seconds"' not in drawn
    assert "seconds are withheld" in drawn


def test_times_measured_alone_give_seconds_that_the_runs_cannot():
    times = {"base": (10.0, 12.0, 11.0), "arm": (22.0, 21.0, 23.0)}
    s = rows(replace(sharing(1, 2), step_ms=times))["arm"].speedups["seconds"]
    assert s.ratio == pytest.approx(1.25 * 11 / 22)
    assert s.words == "0.62 x"
    assert (s.low, s.high) == pytest.approx((0.625, 0.625))
    missed = a_study({"base": {1: 3.5, 2: 3.5}, "arm": {1: 3.0, 2: 3.6}}, step_ms=times)
    words = rows(missed)["arm"].speedups["seconds"].words
    assert words == "not reached by 1 of 2 seeds, 0.62 x by the others", "1.25 x is of updates"
    only = rows(replace(sharing(1, 2), step_ms={"base": (10.0,)}))["arm"].speedups["seconds"]
    assert only.words == "withheld"


@pytest.mark.parametrize(("others", "counts"), [(0, True), (1, False)])
def test_times_that_were_measured_beside_other_runs_count_for_nothing(home, others, counts):
    timed = {"step_ms": (10.0, 11.0), "setting": None}
    Timing(
        contest="demo", measured="2026-01-01T00:00:00+00:00", host="a", place="2 threads",
        updates=25, machine=({"other_runs": 0}, {"other_runs": others}),
        arms=dict.fromkeys(("cosine", "wsd"), timed),
    ).write(home)  # fmt: skip
    study = read([str(home)])
    assert bool(study.step_ms) is counts
    assert any("time it again" in problem for problem in study.problems) is not counts
