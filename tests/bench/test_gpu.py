"""bench.gpu: its parts survive what fails, and its checks can fail."""

import math
import subprocess
import sys
import threading
import time

import pytest
import torch

from bench.gpu import build_nanogpt, contest, levers, reference, smoke, table, throughput
from bench.gpu.__main__ import PARTS, Plan, _carry_out, main
from bench.gpu.part import Part, Settings, check, run
from configs import load
from optim.lion import Lion
from tests.forked import Forked
from tests.jobs import ROOT, finish

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from bench.gpu.part import Part

def raises():
    raise ValueError("no such kernel")

def dies():
    print("illegal memory access", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def hangs():
    print("waiting for a lock", flush=True)
    time.sleep(60)

part = Part(Path(sys.argv[1]), "smoke")
part.rows("step", "first", lambda: {"ms": 1.5})
part.rows("step", "raises", raises if sys.argv[2] == "broken" else lambda: {"ms": 2})
part.rows("step", "dies", dies if sys.argv[2] == "broken" else lambda: {"ms": 3})
part.rows("step", "hangs", hangs if sys.argv[2] == "broken" else lambda: {"ms": 4})
part.rows("step", "last", lambda: {"ms": 5})
"""


def settings(folder, **given):
    return Settings(folder, **{"device": "cpu", "tiny": True, "build_nanogpt": None, **given})


def carried_out(folder, how):
    command = [sys.executable, "-c", PROGRAM, str(folder), how]
    plan = Plan("a part", estimate=1, limit=1, row=1 / 60)
    return _carry_out(settings(folder), "smoke", plan, time.monotonic() + 60, command, [])


def test_rows_that_fail_hang_or_die_are_recorded_and_tried_again_by_the_next_start(tmp_path):
    assert carried_out(tmp_path, "broken") is None
    part = Part(tmp_path, "smoke")
    said = {row["name"]: row.get("error", row.get("ms")) for row in part.content["tables"]["step"]}
    assert said == {
        "first": 1.5,
        "raises": "exit code 1; last line: ValueError: no such kernel",
        "dies": "exit code -9; last line: illegal memory access",
        "hangs": "no end after 0.0166667 min; last line: waiting for a lock",
        "last": 5,
    }
    assert len(part.problems()) == 3
    ended = part.content["done"]["step: first"]["ended"]
    assert carried_out(tmp_path, "mended") is None
    part = Part(tmp_path, "smoke")
    assert part.problems() == []
    assert {r["name"]: r["ms"] for r in part.content["tables"]["step"]} == {
        **{"first": 1.5, "last": 5, "raises": 2, "dies": 3, "hangs": 4}
    }
    assert part.content["done"]["step: first"]["ended"] == ended, "measured once"


def test_a_check_that_could_not_be_made_is_made_by_a_later_start(tmp_path):
    for ok, found in ((None, "pytest is not installed"), (True, "3 passed"), (False, "again")):
        part = Part(tmp_path, "smoke")
        part.retry()
        part.rows("check", "tests", lambda ok=ok, found=found: [check("tests", "all", found, ok)])
    (row,) = part.content["tables"]["check"]
    assert row["found"] == "3 passed"


def test_a_part_that_cannot_start_says_so_and_is_not_started_again_and_again(tmp_path):
    plan = Plan("a part", 1, 1, 1)
    command = [sys.executable, "-c", "raise SystemExit('no module named torch')"]
    end = time.monotonic() + 60
    reason = _carry_out(settings(tmp_path), "smoke", plan, end, command, [])
    assert reason == "exit code 1; last line: no module named torch"


def test_a_signal_ends_the_part(tmp_path):
    code = "import subprocess, sys; print(1, flush=True); subprocess.run(['sleep', '60'])"
    signals, plan, end = [], Plan("a part", 1, 1, 1), time.monotonic() + 60
    threading.Timer(0.5, signals.append, ["SIGTERM"]).start()
    given = settings(tmp_path), "smoke", plan, end, [sys.executable, "-c", code], signals
    assert _carry_out(*given) == "stopped"
    assert time.monotonic() < end - 30


def test_programs_find_the_packages_that_pythonpath_names(tmp_path, monkeypatch):
    (tmp_path / "carried.py").write_text("print('here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import carried, bench.gpu.part"
    assert run([sys.executable, "-c", code]) == "here\n"


def test_page_has_a_table_for_all_rows_and_says_what_failed(tmp_path):
    part = Part(tmp_path, "smoke")
    part.rows("step", "a|b", lambda: {"ms": 1234.5, "MFU": None})
    part.rows("step", "c", lambda: {"ms": 0.0123})
    part.rows("check", "d", lambda: [check("d", "1", 2, False)])
    part.content["tables"]["step"].append({"name": "e", "error": "out of memory"})
    lines = table.page({"device": "X"}, {"smoke": part}, {"smoke": "Smoke"}).splitlines()
    assert "- device: X" in lines
    assert [x for x in lines if x.startswith("|")] == [
        "| step | ms | MFU |",
        "| --- | ---: | --- |",
        "| a/b | 1,234 | - |",
        "| c | 0.0123 |  |",
        "| check | expected | found | ok |",
        "| --- | --- | --- | --- |",
        "| d | 1 | 2 | **no** |",
    ]
    assert "- e: out of memory" in lines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "cpu"], "error: --device cpu needs --tiny"),
        (["--device", "cpu", "--tiny", "--build-nanogpt", "/nowhere"], "has no train_gpt2.py"),
        (["--table"], "holds no figures"),
        pytest.param(
            [],
            "error: CUDA is not available",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA"),
        ),
    ],
)
def test_mistakes_are_one_line(words, said, tmp_path, capsys):
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_figures_of_two_machines_do_not_mix(tmp_path, capsys):
    (tmp_path / "machine.json").write_text('{"device": "H100", "torch": "2", "sizes": "tiny"}')
    assert main(["--device", "cpu", "--tiny", "--out", str(tmp_path)]) == 2
    assert "holds figures of device H100" in capsys.readouterr().err


# ---------------------------------------------------------------- its checks


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "sophia_g", "muonclip", "soap"])
def test_optimizers_equal_the_reference(name):
    row = reference.against_reference(name, "cpu")
    assert row["ok"], row


def test_an_update_that_is_one_percent_off_is_noticed(monkeypatch):
    exact = Lion.coefficients

    def off(self, h, step):
        factor = 1.01 if self.param_groups[0]["params"][0].dtype == torch.float32 else 1
        return {**exact(self, h, step), "lr": factor * h["lr"]}

    monkeypatch.setattr(Lion, "coefficients", off)
    assert reference.against_reference("lion", "cpu")["ok"] is False


def test_an_update_that_is_not_finite_is_noticed(monkeypatch):
    monkeypatch.setattr(Lion, "coefficients", lambda self, h, step: {"lr": math.nan, "decay": 1})
    assert reference.against_reference("lion", "cpu")["ok"] is False


def test_resumed_losses_have_equal_bits_on_a_cpu_and_are_near_on_a_gpu(tmp_path):
    def alike(device, difference):
        runs = smoke._Runs(settings(tmp_path, device=device))
        return runs._alike("resumed", {1: 5.0}, {1: 5.0 + difference})["ok"]

    assert alike("cpu", 0)
    assert not alike("cpu", 1e-15 * 5)
    assert alike("cuda", smoke.ROUNDING / 2)
    assert not alike("cuda", smoke.ROUNDING * 2)


def test_throughput_of_a_tiny_run(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "run", lambda command: finish(Forked(command[1:])))
    words = throughput.base(settings(tmp_path))
    row = throughput.ours(words, settings(tmp_path))
    assert row["tokens/s"] == pytest.approx(512e3 / row["ms"])
    assert 0 < row["optimizer, ms"] < row["ms"]
    assert row["MFU, %"] is None, "no peak of a CPU is known"


def test_every_lever_is_a_setting_that_the_configuration_takes(tmp_path):
    found = list(levers.changes(settings(tmp_path, device="cuda", tiny=False)))
    assert ("dtype", "float32") in found
    assert ("compile", False) in found
    assert ("micro_batch_size", 16) in found
    for key, value in found:
        load(["configs/gpt2_124m.toml", f"--train.{key}", str(value).lower()])


SHIPPED = """
total_batch_size = 524288 # tokens
B = 64 # micro batch size
T = 1024 # sequence length
import numpy as np
from types import SimpleNamespace
from hellaswag import render_example, iterate_examples
import tiktoken
torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
assert tiktoken.get_encoding("gpt2").decode([1]) == ""
assert len(np.load("edu_fineweb10B/train_000000.npy")) > total_batch_size
GPTConfig = dict
model = GPTConfig(vocab_size=50304)
use_compile = False # torch.compile interferes
warmup_steps = 715
max_steps = 19073 # steps
for step in range(max_steps):
    dt = 1000 if step in (0, max_steps - 1) else 2 + use_compile
    print(f"step {step:5d} | loss: 10.9 | dt: {dt:.2f}ms | tok/sec: 1.00")
assert (total_batch_size, B, T, model["n_embd"]) == (512, 8, 32, 32)
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_build_nanogpt_is_run_with_our_sizes(compiled, tmp_path):
    (tmp_path / "train_gpt2.py").write_text(SHIPPED)
    config = load(throughput.base(settings(tmp_path)))
    row = build_nanogpt.measured(tmp_path, config, 14, compiled)
    assert row["ms"] == 2 + compiled, "the first ten and the last update do not count"
    assert row["tokens/s"] == 512e3 / row["ms"]
    assert (tmp_path / "train_gpt2.py").read_text() == SHIPPED


def test_another_build_nanogpt_is_refused(tmp_path):
    (tmp_path / "train_gpt2.py").write_text(SHIPPED.replace("use_compile = False", "compile = 0"))
    config = load(throughput.base(settings(tmp_path)))
    with pytest.raises(RuntimeError, match=r"'use_compile = False' is not in train_gpt2.py once"):
        build_nanogpt.measured(tmp_path, config, 14, False)


@pytest.mark.slow
def test_all_parts_on_a_cpu(tmp_path):
    command = [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--tiny"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "gpu.md").read_text()
    assert "**no**" not in page
    assert page.count("\n## ") == len(PARTS)
    assert f"| {contest.TABLE} |" in page
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "kill and resume" not in again.stdout, "what is done is not done again"
