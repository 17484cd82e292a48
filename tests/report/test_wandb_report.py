"""The W&B report: the specification that would be saved, and its saving by wandb's own client."""

import json
import re

import pytest

from tests.record.test_wandb_mirror import online
from tests.report.contest_folder import write_contest
from tests.report.test_wandb_runs import process
from tests.wandb_server import WandbServer

PUBLISH = """
import sys
from report.judgement import judge
from report.run import ReportError
from report.sources import read
from report.wandb_report import publish
study = read(sys.argv[1:])
judged = judge(study)
for run in study.runs:
    run.val["hellaswag/acc_norm"] = 1 / run.val["val/loss"]
for project in ("bench", "nowhere"):
    try:
        print(publish(study, judged, "lab", project))
    except ReportError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """What was said of publishing to two projects, what the server got, its address."""
    server, home = WandbServer(), tmp_path_factory.mktemp("home")
    contest = write_contest(home / "schedules", {"cosine": 0.0, "wsd": 0.5}, tuning=True)
    said = process(PUBLISH, home, contest, **online(server)).splitlines()
    yield said, server.views, server.url
    server.stop()


def grids(view):
    """Run sets and panels of each panel grid of a saved specification."""
    blocks = json.loads(view["spec"])["blocks"]
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    return [(g["runSets"], g["panelBankSectionConfig"]["panels"]) for g in grids]


def test_report_is_saved_and_its_address_printed(published):
    said, views, url = published
    (view,) = views
    assert (view["entityName"], view["projectName"], view["type"]) == ("lab", "bench", "runs")
    assert view["displayName"] == "schedules, 2 arms"
    assert re.fullmatch(rf"{url}/lab/bench/reports/schedules,-2-arms--\w+", said[0])


def test_the_leaderboard_is_its_first_block(published):
    blocks = json.loads(published[1][0]["spec"])["blocks"]
    first = next(block for block in blocks if block["type"] != "paragraph")
    assert first["type"] == "markdown-block"
    lines = first["content"].splitlines()
    table = lines[lines.index("## Leaderboard") :]
    rows = [line.split(" | ") for line in table if line.startswith("| ")]
    assert rows[0][:4] == ["| arm", "verdict", "rank", "final val loss"]
    assert [row[:3] for row in rows[2:4]] == [
        ["| wsd", "better", "1"],
        ["| cosine", "baseline", "2"],
    ]
    losses = [float(row[3]) for row in rows[2:4]]
    assert losses[1] - losses[0] == pytest.approx(0.5, abs=0.02)  # as the records were made


def test_run_sets_are_the_groups_of_the_contest(published):
    (curves, _), (tuning, _) = grids(published[1][0])
    for (runs,), group in ((curves, "schedules"), (tuning, "schedules-tuning")):
        (rule,) = runs["filters"]["filters"]
        assert (rule["key"], rule["op"], rule["value"]) == (
            {"section": "run", "name": "group"},
            "=",
            group,
        )
        assert runs["project"]["entityName"] == "lab"
        assert runs["project"]["name"] == "bench"
    assert curves[0]["grouping"] == [{"section": "run", "name": "jobType"}]


def test_panels_are_those_of_the_page(published):
    (_, curves), (_, tuning) = grids(published[1][0])
    drawn = {
        (panel["config"]["metrics"][0], panel["config"].get("xAxis"))
        for panel in curves
        if panel["viewType"] == "Run History Line Plot"
    }
    for loss in ("val/loss", "train/loss"):
        assert {(loss, x) for x in ("_step", "tokens", "time/train_seconds")} <= drawn
    for metric in ("lr", "grad_norm", "stability_score", "spike_score"):
        assert (f"train/{metric}", "_step") in drawn
    assert ("time/train_seconds", "_step") in drawn
    assert ("time/step_ms", "_step") in drawn
    assert ("hellaswag/acc_norm", "_step") in drawn
    assert all(panel["config"]["groupBy"] == "jobType" for panel in curves)
    (scatter,) = tuning
    assert scatter["config"]["xAxis"] == "config:optimizer.value.lr"
    assert scatter["config"]["yAxis"] == "summary:final_val_loss"


def test_panels_of_a_grid_do_not_overlap(published):
    (_, curves), _ = grids(published[1][0])
    places = set()
    for panel in curves:
        at = panel["layout"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                 for y in range(at["y"], at["y"] + at["h"])}  # fmt: skip
        assert not places & cells
        places |= cells


def test_missing_project_is_a_one_line_error(published):
    said, views, _ = published
    assert said[1].startswith("W&B has no project lab/nowhere that this account can write to")
    assert len(views) == 1
