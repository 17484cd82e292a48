"""The record on disk: exact, complete after a kill, cut back on resume, one writer at a time."""

import contextlib
import inspect
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from record import runlog
from record.runlog import (
    NoLog,
    RecordError,
    RunLog,
    WandbOptions,
    decode,
    encode,
    lock,
    read_metrics,
    read_record,
    read_summary,
)
from storage import is_locked
from tests.jobs import ROOT

OFF = WandbOptions(mode="disabled", project="bench", name="adamw-cosine-s1-0a1b2c3d")


def open_log(directory: Path, resume_offset: int | None = None) -> RunLog:
    return RunLog(
        directory, config_toml="seed = 1\n", config={}, resume_offset=resume_offset, wandb=OFF
    )


names = st.text(min_size=1).filter(lambda name: name not in ("step", "nonfinite"))
values = st.one_of(st.floats(), st.integers(-(2**60), 2**60), st.booleans(), st.none(), st.text())


def same(a, b) -> bool:
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return a == b and type(a) is type(b)


@given(st.dictionaries(names, values))
def test_every_value_reads_back_exactly(record):
    line = encode(record)
    assert b"\n" not in line
    json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    back = decode(line)
    assert list(back) == list(record)
    assert all(same(record[name], back[name]) for name in record)


def test_lines_are_on_disk_when_log_returns(tmp_path):
    log = open_log(tmp_path)
    log.log(0, {"val/loss": 10.8})
    log.log(0, {"train/loss": 0.1 + 0.2, "train/grad_norm": math.inf, "mfu": None})
    assert read_metrics(tmp_path) == [
        {"step": 0, "val/loss": 10.8},
        {"step": 0, "train/loss": 0.1 + 0.2, "train/grad_norm": math.inf, "mfu": None},
    ]
    assert (tmp_path / "config.toml").read_text() == "seed = 1\n"
    assert log.offset() == (tmp_path / "metrics.jsonl").stat().st_size


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x"])
def test_what_json_cannot_hold_is_refused_in_one_line(tmp_path, value):
    log = open_log(tmp_path)
    with pytest.raises(RecordError, match="cannot record") as caught:
        log.log(3, {"train/loss": value})
    assert "\n" not in str(caught.value)
    assert read_metrics(tmp_path) == []


def test_the_name_step_is_reserved(tmp_path):
    with pytest.raises(RecordError, match="'step' at step 3 is reserved"):
        open_log(tmp_path).log(3, {"step": 4})


def test_resume_cuts_back_to_the_checkpoint(tmp_path):
    log = open_log(tmp_path)
    log.log(0, {"train/loss": 3.0})
    offset = log.offset()
    log.log(1, {"train/loss": 2.0})
    log = open_log(tmp_path, offset)
    log.log(1, {"train/loss": 1.5})
    assert [line["train/loss"] for line in read_metrics(tmp_path)] == [3.0, 1.5]
    assert log.offset() == 2 * offset


def test_fresh_start_replaces_an_attempt_without_checkpoint(tmp_path):
    log = open_log(tmp_path)
    log.log(0, {"train/loss": 3.0})
    log.record(hashes={"weights": "aa"})
    open_log(tmp_path)
    assert read_metrics(tmp_path) == []
    record = read_record(tmp_path)
    assert "hashes" not in record
    assert len(record["launches"]) == 2
    assert record["wandb"]["id"] != log.facts["wandb"]["id"]


def test_resume_wants_the_bytes_that_the_checkpoint_saw(tmp_path):
    log = open_log(tmp_path)
    log.log(0, {"train/loss": 3.0})
    offset = log.offset()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(RecordError, match=rf"has {offset} bytes .* after {offset + 1}; restore"):
        open_log(tmp_path, offset + 1)
    with pytest.raises(RecordError, match=rf"no line that ends at byte {offset - 1}"):
        open_log(tmp_path, offset - 1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_torn_last_line_is_left_out_and_any_other_is_an_error(tmp_path):
    assert read_metrics(tmp_path) == []
    path = tmp_path / "metrics.jsonl"
    for tail in (b'{"step": 1, "train/l', b"\0\0\0", b"{", b'{"step": 1}garbage\n'):
        path.write_bytes(b'{"step": 0}\n' + tail)
        assert read_metrics(tmp_path) == [{"step": 0}]
    path.write_bytes(b'{"step": 0}\n{"step": 1}')
    assert len(read_metrics(tmp_path)) == 2  # whole, only its end of line is missing
    path.write_bytes(b'{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(RecordError, match=r"metrics\.jsonl:2 is not a JSON object"):
        read_metrics(tmp_path)


def test_record_merges_and_every_launch_keeps_its_environment(tmp_path):
    log = open_log(tmp_path)
    log.record(hashes={"weights": "aa"}, environment={"host": "a"})
    log.record(parameters=124)
    log.finish("stopped", {})
    log = open_log(tmp_path, 0)
    log.record(environment={"host": "b"})
    record = read_record(tmp_path)
    assert (record["hashes"], record["parameters"]) == ({"weights": "aa"}, 124)
    first, second = record["launches"]
    assert (first["environment"], second["environment"]) == ({"host": "a"}, {"host": "b"})
    assert first["status"] == "stopped"
    assert first["ended"] >= first["started"]
    assert "status" not in second  # it runs, or was killed
    assert second["pid"] == os.getpid()


def test_summary_appears_at_the_end_and_goes_when_the_run_goes_on(tmp_path):
    log = open_log(tmp_path)
    assert read_summary(tmp_path) is None
    log.finish("diverged", {"final_val_loss": math.nan, "steps": 7})
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["steps"]) == ("diverged", 7)
    assert math.isnan(summary["final_val_loss"])
    assert b"NaN" not in (tmp_path / "summary.json").read_bytes()
    open_log(tmp_path, 0)
    assert read_summary(tmp_path) is None


def test_unknown_status_is_refused(tmp_path):
    with pytest.raises(RecordError, match="'done' is not one of finished, diverged, stopped"):
        open_log(tmp_path).finish("done", {})


def test_exception_ends_the_launch_as_failed_without_a_summary(tmp_path):
    with pytest.raises(ZeroDivisionError), open_log(tmp_path):
        raise ZeroDivisionError("in the trainer")
    assert read_summary(tmp_path) is None
    launch = read_record(tmp_path)["launches"][0]
    assert launch["status"] == "failed"
    assert launch["error"].startswith("ZeroDivisionError")
    with open_log(tmp_path) as log:
        log.finish("finished", {})
    assert read_record(tmp_path)["launches"][1]["status"] == "finished"


def test_nothing_is_left_beside_the_files(tmp_path):
    log = open_log(tmp_path)
    log.record(a=1)
    log.finish("finished", {})
    names = ["config.toml", "metrics.jsonl", "record.json", "summary.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_no_log_has_every_method_of_run_log():
    for name, method in inspect.getmembers(RunLog, inspect.isfunction):
        if not name.startswith("_") or name in ("__enter__", "__exit__"):
            ours = inspect.signature(method).parameters
            assert list(ours) == list(inspect.signature(getattr(NoLog, name)).parameters), name
    with NoLog() as log:
        assert (log.log(0, {}), log.record(a=1), log.offset(), log.sync()) == (None, None, 0, None)
        assert log.finish("finished", {}) is None


WRITER = """
import sys
from pathlib import Path
from record.runlog import RunLog, WandbOptions, lock
directory = Path(sys.argv[1])
held = lock(directory, 0.0)
log = RunLog(directory, config_toml="", config={}, resume_offset=None,
             wandb=WandbOptions(mode="disabled", project="p", name="n"))
step = 0
while True:
    log.log(step, {"train/loss": 1 / (step + 3), "train/grad_norm": step / 7})
    if step == 200:
        print(log.offset(), flush=True)
    step += 1
"""


@pytest.fixture
def writer(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    process.offset = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()


def test_killed_writer_leaves_whole_lines_and_a_free_directory(tmp_path, writer):
    with pytest.raises(RecordError, match=rf"in use by host \S+ pid {writer.pid} since 20"):
        lock(tmp_path, 0.2)
    writer.send_signal(signal.SIGKILL)
    held = lock(tmp_path, 10.0)
    assert f"pid {os.getpid()} " in (tmp_path / "lock").read_text()
    lines = read_metrics(tmp_path)
    assert len(lines) > 200
    assert lines == [
        {"step": s, "train/loss": 1 / (s + 3), "train/grad_norm": s / 7} for s in range(len(lines))
    ]
    log = open_log(tmp_path, writer.offset)
    assert len(read_metrics(tmp_path)) == 201
    assert log.offset() == writer.offset
    held.close()


def test_lock_waits_for_a_process_on_its_way_out(tmp_path):
    first = lock(tmp_path, 0.0)
    began = time.monotonic()
    with pytest.raises(RecordError, match=r"waited 0\.3 s"):
        lock(tmp_path, 0.3)
    assert 0.3 <= time.monotonic() - began < 2
    first.close()
    lock(tmp_path, 0.0).close()


def test_reading_and_writing_import_neither_torch_nor_wandb():
    code = "import sys, record.runlog, record.metrics, record.hardware; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not {"torch", "wandb", "scipy", "configs", "data", "optim"} & set(done.stdout.split())


def test_an_end_that_cannot_be_written_releases_the_lock_and_is_recorded_as_failed(
    tmp_path, monkeypatch
):
    real = runlog.write_atomically

    def full(path, text):
        if path.name == "summary.json":
            raise OSError(28, "No space left on device")
        real(path, text)

    held = lock(tmp_path, 0)
    options = {"config_toml": "", "config": {}, "resume_offset": None, "wandb": OFF, "held": held}
    monkeypatch.setattr(runlog, "write_atomically", full)
    with (
        pytest.raises(RecordError, match="No space left on device; make room"),
        RunLog(tmp_path, **options) as log,
    ):
        log.finish("finished", {})
    assert read_record(tmp_path)["launches"][-1]["status"] == "failed"
    lock(tmp_path, 0).close()  # nobody holds it any more


@pytest.mark.parametrize("ends", ["well", "by an error"])
def test_the_folder_is_held_until_what_is_being_written_has_ended(tmp_path, ends):
    order, go = [], threading.Event()

    def work(_):
        go.wait(60)
        assert is_locked(tmp_path)
        assert read_summary(tmp_path) is None
        order.append("written")

    options = {"config_toml": "", "config": {}, "resume_offset": None, "wandb": OFF}
    with (
        contextlib.suppress(ZeroDivisionError),
        RunLog(tmp_path, **options, held=lock(tmp_path, 0)) as log,
    ):
        log.writer.write(None, work)
        threading.Timer(0.05, go.set).start()
        if ends == "by an error":
            raise ZeroDivisionError
        log.finish("diverged", {})
    assert order == ["written"]
    assert not is_locked(tmp_path)


def test_a_run_whose_last_checkpoint_was_not_written_has_no_summary(tmp_path):
    def full(_):
        raise OSError(28, "No space left on device")

    log = open_log(tmp_path)
    log.writer.write(None, full)
    with pytest.raises(RecordError, match="No space left on device; make room"):
        log.finish("diverged", {})
    assert read_summary(tmp_path) is None


def test_a_line_that_cannot_be_written_is_remembered_and_stops_the_next_checkpoint(tmp_path):
    log = open_log(tmp_path)
    log.log(0, {"train/loss": 3.0})
    assert log.failure is None
    log.metrics.close()
    log.metrics = open("/dev/full", "ab")  # noqa: PTH123, SIM115
    log.log(1, {"train/loss": 2.0})
    log.log(2, {"train/loss": 1.0})
    assert log.failure.errno == 28
    with pytest.raises(OSError, match=r"cannot write .*metrics.jsonl: .*No space left"):
        log.offset()


def test_a_resumed_launch_keeps_the_hash_of_the_weights_and_refuses_other_batches(tmp_path):
    with open_log(tmp_path) as log:
        log.begin({"weights": "w" * 64, "batches": "b" * 64}, {"threads": 1})
    with open_log(tmp_path, resume_offset=0) as log:
        log.begin({"batches": "b" * 64}, {"threads": 2})
        with pytest.raises(RecordError, match=r"batches is cccccccc, not bbbbbbbb; bring"):
            log.begin({"batches": "c" * 64}, {})
    record = read_record(tmp_path)
    assert record["hashes"] == {"weights": "w" * 64, "batches": "b" * 64}
    assert [x["environment"]["threads"] for x in record["launches"]] == [1, 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("val", r"the hash of the val text is xxxxxxxx, not vvvvvvvv; bring the old tokens back"),
        ("test", r"the hash of the test text is xxxxxxxx, not tttttttt; bring the old tokens back"),
        ("data", r"the hash of all shards is xxxxxxxx, not dddddddd; bring the old tokens back"),
        ("weights", r"initial weights are not .* hash is xxxxxxxx, not wwwwwwww; bring back"),
    ],
)
def test_a_resumed_launch_refuses_other_texts_and_other_initial_weights(tmp_path, name, message):
    first = {key: key[0] * 64 for key in ("batches", "val", "test", "data", "weights")}
    with open_log(tmp_path) as log:
        log.begin(first, {})
        with pytest.raises(RecordError, match=message) as caught:
            log.begin({**first, name: "x" * 64}, {})
        assert "\n" not in str(caught.value)
    assert read_record(tmp_path)["hashes"] == first


def test_a_resumed_launch_without_its_record_goes_on(tmp_path):
    """Somebody removed record.json: the hash of the initial weights is lost, the run is not."""
    open_log(tmp_path).metrics.close()
    (tmp_path / "record.json").unlink()
    with open_log(tmp_path, resume_offset=0) as log:
        log.begin({"batches": "b" * 64}, {})
    assert read_record(tmp_path)["hashes"] == {"batches": "b" * 64}
