"""report.md, results.csv, report.html and the command, the page in a real headless Chromium."""

import base64
import csv
import gzip
import io
import json
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from report.__main__ import main
from report.figures import figures
from report.judgement import judge
from report.page import page
from report.results import results
from report.sections import escaped
from report.series import MOST_POINTS, buckets
from report.sources import read
from report.tables import sections
from tests.jobs import ROOT
from tests.report.browser import browser, open_page, violations, wait_until_drawn
from tests.report.contest_folder import configuration, curve, write_contest, write_run

NASTY = '<script>alert("x")</script>|=1+1'
FORMULA = "=1+1"  # for a spreadsheet


@pytest.fixture(scope="session")
def contest(tmp_path_factory):
    """Four arms, three seeds, tuned; every run finished."""
    home = write_contest(
        tmp_path_factory.mktemp("report") / "demo",
        {"cosine": 0.0, "wsd": 0.02, "linear": 0.001, "step": -0.03},
        steps=150, every=15, tuning=True,
    )  # fmt: skip
    assert main([str(home)]) == 0
    return home


def test_command_writes_three_files_and_says_the_verdict(contest, capsys):
    assert main([str(contest)]) == 0
    said = capsys.readouterr().out
    assert "Choose wsd" in said
    arms = [line.split() for line in said.splitlines() if line.split()[0] in ("wsd", "cosine")]
    (wsd, cosine) = arms  # best first, with what the verdict rests on
    assert (wsd[0], wsd[2], wsd[-1]) == ("wsd", "3", "better")
    assert cosine[-1] == "baseline"
    gap, low, high = (float(word.strip("[],").replace("−", "-")) for word in wsd[3:6])
    assert gap == pytest.approx(float(wsd[1]) - float(cosine[1]), abs=2e-4)
    assert low < gap < high < 0
    assert {"report.md", "results.csv", "report.html", "forest.svg"} <= {
        p.name for p in contest.iterdir()
    }
    text = (contest / "report.md").read_text()
    assert re.search(r"\| wsd \| better \| 1 \| 3\.\d{4} \|", text)
    assert "# demo" in text


def test_command_as_a_process_answers_mistakes_in_one_line(tmp_path):
    for arguments, words in [
        ([str(tmp_path)], "holds no run"),
        ([str(tmp_path / "x")], "does not exist"),
    ]:
        done = subprocess.run([sys.executable, "-m", "report", *arguments], cwd=ROOT,
                              capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--target", "--wanted"])
@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "much"])
def test_target_and_wanted_difference_are_finite_and_above_zero(option, value, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["runs", f"{option}={value}"])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"argument {option}: {value!r} is not a finite number above 0")


@pytest.mark.parametrize("project", ["nope", "lab/", "/bench", "lab/bench/schedules"])
def test_wandb_project_is_checked_before_anything_is_written(tmp_path, capsys, project):
    write_run(tmp_path / "a", configuration("a", 1, steps=20), curve(1, 20, 0.0))
    assert main([str(tmp_path), "--wandb", project]) == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: --wandb {project!r} should be ENTITY/PROJECT\n"
    assert printed.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_csv_has_every_run_and_its_numbers(contest):
    lines = list(csv.DictReader(io.StringIO((contest / "results.csv").read_text())))
    study = read([str(contest)])
    assert len(lines) == len(study.runs) == 12 + 12
    by_name = {line["run"]: line for line in lines}
    for run in study.runs:
        assert float(by_name[run.name]["final_val_loss"]) == run.summary["final_val_loss"]
        assert float(by_name[run.name]["optimizer.lr"]) == run.config["optimizer"]["lr"]


def test_report_while_runs_go_on_diverge_and_fail(tmp_path):
    """Every kind of trouble at once: the report is made, and names each."""
    home = write_contest(tmp_path / "demo", {"a": 0.0, "b": 0.02}, steps=20, skip={("b", 3)})
    config = configuration("b", 4, steps=20)
    write_run(home / "going", config, curve(4, 20, 0.0), status="killed", upto=12)
    losses = curve(5, 20, 0.0)
    losses[10:] = np.nan
    diverging = configuration("b", 5, steps=20)
    write_run(home / "burst", diverging, losses, status="diverged", upto=11)
    (home / "empty").mkdir()
    study = read([str(home)])
    judgement = judge(study)
    text = page(study, judgement, sections(study, judgement, "python -m report"))
    for words in ("planned, but not started", "ended without a summary", "diverged (non-finite)",
                  "no run in empty", "run folders not in plan.json: 2", "7 of 8 runs"):  # fmt: skip
        assert words in text
    statuses = sorted(run.status for run in study.of("b"))
    assert statuses == ["diverged", "finished", "finished", "missing", "stopped"]


@pytest.mark.parametrize("upto", [0, 1, 5])
def test_report_of_runs_that_have_just_begun(tmp_path, upto):
    for arm in ("a", "b"):
        config = configuration(arm, 1, steps=20)
        write_run(tmp_path / arm, config, curve(1, 20, 0.0), status="killed", upto=upto)
    assert main([str(tmp_path), "--baseline", "a"]) == 0
    assert "no finished run" in (tmp_path / "report.md").read_text()


def test_everything_from_files_is_escaped(tmp_path):
    for arm in (NASTY, "plain", FORMULA):
        for seed in (1, 2):
            config = configuration(arm, seed, steps=20)
            write_run(tmp_path / f"{arm[:1]}{seed}".replace("<", "n"), config, curve(seed, 20, 0.0))
    study = read([str(tmp_path)])
    judgement = judge(replace(study, baseline=NASTY))
    text = page(study, judgement, sections(study, judgement, "x"))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    _, first, *_ = csv.reader(io.StringIO(results(study)))
    assert first[2] == f"'{FORMULA}"
    assert escaped(NASTY) == '\\<script\\>alert("x")\\</script\\>\\|=1+1'


def test_page_is_one_file_with_plotly_once(contest):
    text = (contest / "report.html").read_text()
    (packed,) = re.findall(r'<script type="text/plain" id="plotly">(.*?)</script>', text)
    assert gzip.decompress(base64.b64decode(packed)).decode().count("* plotly.js v") == 1
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?(?:https?:)?//", text)
    assert len(text) < 2.5e6


TIMES = ["time", "step_times", "bootstrap_means", "step_differences"]


def test_figures_of_a_contest_and_their_arms(contest):
    study = read([str(contest)])
    study = replace(study, runs=[replace(run, shared=None) for run in study.runs])
    drawn = figures(study, judge(study))
    assert [figure.id for figure in drawn] == [
        "finals", "val_loss", "train_loss", "speedups", "lr", "grad_norm", "time",
        "stability", "spikes", "sensitivity", "step_times", "bootstrap_means", "step_differences",
    ]  # fmt: skip
    for figure in drawn:
        arms = {trace.meta["arm"] for trace in figure.plot.data}
        assert arms <= set(study.arms)
        assert all(figure.said.count(f"{arm} ") >= 1 for arm in arms), figure.said
    assert {figure.id for figure in drawn if figure.folded} == {*TIMES, "stability", "spikes"}


def test_figures_of_seconds_are_withheld_unless_every_run_had_its_machine_alone(contest):
    study = read([str(contest)])
    shared = "2 other runs on its machine"
    study = replace(study, runs=[replace(run, shared=shared) for run in study.runs])
    drawn = [figure.id for figure in figures(study, judge(study))]
    assert not {*TIMES} & {*drawn}
    assert len(drawn) == 9


def test_downsampling_keeps_spikes_and_means(tmp_path):
    losses = curve(1, 3000, 0.0)
    losses[1234] += 40.0
    write_run(tmp_path / "r", configuration("a", 1, steps=3000, every=500), losses)
    runs = read([str(tmp_path)]).runs
    values = runs[0].train["train/loss"]
    steps, mean, low, high, axes = buckets(runs, "train/loss", MOST_POINTS)
    assert len(steps) == MOST_POINTS
    assert high.max() == values.max()
    assert low.min() == values.min()
    assert mean.mean() == pytest.approx(values.mean())
    assert axes["tokens"][-1] == pytest.approx(4096 * (steps[-1] + 1), rel=1e-5)


# ---------------------------------------------------------------------------------------- Chromium


def severe(session):
    return [
        entry for entry in session.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]


def requests(session):
    messages = (json.loads(e["message"])["message"] for e in session.get_log("performance"))
    urls = [m["params"]["request"]["url"] for m in messages
            if m["method"] == "Network.requestWillBeSent"]  # fmt: skip
    return [url for url in urls if url.startswith(("http", "ws"))]


@pytest.fixture(scope="module")
def desktop():
    """One Chromium for several tests."""
    with browser(1280, 900) as session:
        yield session


@pytest.fixture
def session(desktop):
    """The Chromium, without what earlier pages have logged."""
    for log in ("browser", "performance"):
        desktop.get_log(log)
    return desktop


def test_page_in_chromium_draws_toggles_and_switches(contest, session):
    open_page(session, contest / "report.html", 90)
    script = session.execute_script
    shown = "return [...document.querySelectorAll('.plot')].filter(p => p.data?.length).length"
    assert script(shown) == 7
    everything = script("return document.querySelectorAll('.plot').length")
    assert everything in (9, 13)  # without and with figures of seconds
    session.find_element("css selector", "#figures > details > summary").click()
    wait_until_drawn(session, 90)
    assert script(shown) == everything
    visible = ("return [...document.querySelectorAll('.plot')].flatMap(p => p.data)"
               ".filter(t => t.meta?.arm === 'wsd' && t.visible !== false).length")  # fmt: skip
    assert script(visible) > 14
    chip = session.find_element("css selector", ".chip[data-arm=wsd]")
    chip.click()
    assert script(visible) == 0
    assert chip.get_attribute("aria-pressed") == "false"
    assert "off" in session.find_element(
        "css selector", "#leaderboard tr[data-arm=wsd]"
    ).get_attribute("class")
    chip.click()
    assert script(visible) > 14
    last = "return document.querySelector('#fig-val_loss .plot')._fullData.at(-1).x.at(-1)"
    assert script(last) == 150
    session.find_element("css selector", "[data-axis=tokens]").click()
    assert script(last) == 150 * 4096
    session.find_element("css selector", "[data-axis=steps]").click()
    assert script(last) == 150
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert script(paper) == "rgb(255, 255, 255)"
    session.find_element("id", "theme").click()
    assert script(paper) == "rgb(15, 18, 22)"
    assert severe(session) == []
    assert requests(session) == []


def test_page_meets_wcag_on_both_grounds_with_an_arm_hidden_and_all_folds_open(contest, session):
    open_page(session, contest / "report.html", 90)
    script = session.execute_script
    script("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    wait_until_drawn(session, 90)
    session.find_element("css selector", ".chip[data-arm=wsd]").click()
    assert violations(session) == []
    session.find_element("id", "theme").click()
    script("document.querySelector('caption').style.color = '#777'")  # on #161b21: 3.9 to 1
    (planted,) = violations(session)
    assert planted.startswith("color-contrast: <caption")


def saved(session, table, form):
    """Text of the file that a button of a table saves."""
    return session.execute_async_script(
        "const [table, form, done] = arguments, make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { blob.text().then(done); return make(blob); };"
        "document.querySelector(`[data-name=${table}] [data-save=${form}]`).click();",
        table,
        form,
    )


def test_tables_are_saved_as_csv_and_latex(tmp_path, session):
    contest = write_contest(tmp_path / "demo", {"-2+a_b": 0.0, "=x,%": 0.02}, steps=20, tuning=True)
    assert main([str(contest)]) == 0
    session.get((contest / "report.html").as_uri())
    head, first, second = csv.reader(io.StringIO(saved(session, "leaderboard-1", "csv")))
    assert head[:4] == ["arm", "verdict", "rank", "final val loss"]
    assert [first[:2], second[:2]] == [["'=x,%", "better"], ["'-2+a_b", "baseline"]]
    difference = float(first[head.index("difference")])
    assert difference == pytest.approx(float(first[3]) - float(second[3]), abs=2e-4)
    assert second[head.index("difference")] == ""
    lines = saved(session, "leaderboard-1", "tex").splitlines()
    assert lines[2] == "\\begin{tabular}{llrrrrrrrrlr}"
    assert [lines[3], lines[5], lines[-2]] == ["\\toprule", "\\midrule", "\\bottomrule"]
    assert lines[6].startswith("=x,\\% & better & 1 & 3.")
    assert f" & $-${abs(difference):.4f} & " in lines[6]
    assert lines[7].startswith("-2+a\\_b & baseline & 2 & 3.")
    assert all(line.count(" & ") == len(head) - 1 for line in lines[6:-2])


def test_page_on_a_phone_in_the_dark_does_not_scroll_sideways(contest):
    with browser(360, 780, dark=True, touch=True) as session:
        open_page(session, contest / "report.html", 90)
        widths = session.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert widths[0] <= widths[1] == 360
        edge = "return document.querySelector('#leaderboard .more').textContent"
        assert re.match(
            r"\d+ more columns at the right: .*speed-up: tokens →", session.execute_script(edge)
        )
        ink = "return getComputedStyle(document.body).backgroundColor"
        assert session.execute_script(ink) == "rgb(15, 18, 22)"
        assert severe(session) == []


def big_contest(home, arms=10, seeds=3, steps=5000):
    """metrics.jsonl in bulk: RunLog would take a minute for 150,000 lines."""
    rng, t = np.random.default_rng(0), np.arange(steps)
    for arm in range(arms):
        for seed in range(1, seeds + 1):
            config = configuration(f"arm{arm}", seed, steps=steps, every=250)
            folder = home / f"arm{arm}-{seed}"
            losses = curve(seed, steps, 0.01 * arm)
            write_run(folder, config, losses, upto=0, status="stopped")
            noisy = losses[:-1] + 0.02 * rng.standard_normal(steps)
            ms = 50 + arm + np.abs(rng.standard_normal(steps))
            clock = np.cumsum(ms) / 1000
            lines = [
                json.dumps({"step": s, "val/loss": losses[s]}) for s in (*t[::250].tolist(), steps)
            ]
            rows = zip(t.tolist(), noisy.tolist(), ms.tolist(), clock.tolist(), strict=True)
            lines += [
                f'{{"step": {s}, "train/loss": {x!r}, "train/grad_norm": {x!r}, "train/lr": 0.001, '
                f'"train/stability_score": 0.7, "train/spike_score": 0.1, "time/step_ms": {m!r}, '
                f'"time/train_seconds": {c!r}, "tokens": {4096 * (s + 1)}}}'
                for s, x, m, c in rows
            ]
            (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
            end = {"status": "finished", "steps": steps, "initial_val_loss": losses[0],
                   "final_val_loss": losses[-1], "diverged": False}  # fmt: skip
            (folder / "summary.json").write_text(json.dumps(end))


def test_ten_arms_three_seeds_five_thousand_steps_open_in_three_seconds(tmp_path):
    big_contest(tmp_path)
    began = time.process_time()
    assert main([str(tmp_path), "--baseline", "arm0"]) == 0
    assert time.process_time() - began < 30
    path = tmp_path / "report.html"
    assert path.stat().st_size < 3e6
    with browser(1280, 900) as session:
        session.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        session.get(path.as_uri())
        measured = session.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        busy = {entry["name"]: entry["value"] for entry in measured}["TaskDuration"]
        assert busy < 3  # seconds of the page's own thread, so that a loaded machine counts less
        open_page(session, path, 90)
        assert severe(session) == []
