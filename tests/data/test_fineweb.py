"""FineWeb, or any dataset, local here: the documents in order, through kills and mistakes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import DataError, fineweb, open_split
from data.stdlib import source_files
from data.text import cut
from data.vocabulary import GPT2
from tests.data.reading import EOT, read, shard_bytes
from tests.jobs import ROOT


@pytest.fixture
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python -m data ...` as a process, which datasets and pyarrow may not outlive."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "data", *map(str, args)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture(scope="module")
def real_documents() -> list[str]:
    import sysconfig

    root = Path(sysconfig.get_path("stdlib"))
    names = list(source_files(root))
    texts = ((root / name).read_text(encoding="utf-8", errors="replace") for name in names)
    return [piece for text in texts for piece in cut(text, 2000)][:3000]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory, real_documents) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("parquet")
    half = len(real_documents) // 2
    for i, part in enumerate((real_documents[:half], real_documents[half:])):
        table = pa.table({"id": list(range(len(part))), "text": part})
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=100)
    return str(folder / "*.parquet")


SIZES = ("--tokens", "1.5M", "--val-tokens", "60K", "--shard-tokens", "200_000", "--workers", 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, parquet, vocabulary_folder) -> Path:
    environment = os.environ | {"TIKTOKEN_CACHE_DIR": vocabulary_folder}
    out = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "data", "fineweb", "--dataset", parquet, "--out", out, *SIZES]
    subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True)
    return out


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_fineweb_shards_are_the_documents_in_order(undisturbed, real_documents):
    expected = GPT2().encode(real_documents)
    val, test, train = (read(undisturbed, split) for split in ("val", "test", "train"))
    together = np.concatenate([val, test, train])
    assert np.array_equal(together, expected[: len(together)])
    assert len(train) == 1_500_000
    ends = np.flatnonzero(expected == EOT)  # the splits change between two documents
    assert len(val) == ends[ends >= 60_000][0]  # and at the first such place
    assert len(val) + len(test) == ends[ends >= len(val) + 60_000][0]
    sizes = [len(shard) for shard in open_split(undisturbed, "train", vocab_size=EOT + 1).shards]
    assert sizes == [200_000] * 7 + [100_000]


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_fineweb_killed_twice_goes_on_to_the_same_bytes(cli, tmp_path, parquet, undisturbed):
    command = ["fineweb", "--dataset", parquet, "--out", tmp_path, *SIZES]
    for shard in ("fineweb_val_000000.bin", "fineweb_train_000003.bin"):
        workers = _run_until(command, tmp_path / shard)
        assert not (tmp_path / "meta.json").exists(), "it was too fast to be killed"
        assert workers
        assert _all_gone(workers)
    with pytest.raises(DataError, match="not finished"):
        open_split(tmp_path, "train", vocab_size=50257)
    result = cli(*command)
    assert result.returncode == 0, result.stderr
    assert shard_bytes(tmp_path) == shard_bytes(undisturbed)
    assert {path.name for path in tmp_path.iterdir()} == {
        path.name for path in undisturbed.iterdir()
    }
    metas = [json.loads((d / "meta.json").read_text()) for d in (tmp_path, undisturbed)]
    assert metas[0]["splits"] == metas[1]["splits"]


def _run_until(command: list, file: Path) -> list[int]:
    """Start the command, kill -9 it once `file` exists; returns its children's process ids."""
    process = subprocess.Popen(
        [sys.executable, "-m", "data", *map(str, command)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    return [int(child) for child in children]


def _all_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_jsonl_gives_the_same_bytes_as_parquet(cli, tmp_path, real_documents, undisturbed):
    with (tmp_path / "d.jsonl").open("w") as file:
        file.writelines(json.dumps({"body": text}) + "\n" for text in real_documents)
    out = tmp_path / "out"
    source = ("--dataset", tmp_path / "d.jsonl", "--text-column", "body")
    assert cli("fineweb", *source, "--out", out, *SIZES[:-2], "--workers", 2).returncode == 0
    assert shard_bytes(out) == shard_bytes(undisturbed)


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_dataset_smaller_than_asked_says_so_and_is_complete(cli, tmp_path, real_documents):
    few = real_documents[:60]
    with (tmp_path / "d.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in few)
    options = ("--dataset", tmp_path / "d.jsonl", "--out", tmp_path / "out", "--workers", 1)
    result = cli("fineweb", *options, "--val-tokens", "400K")
    assert result.returncode == 2
    assert "--val-tokens 400,000 and --test-tokens 400,000" in result.stderr
    result = cli("fineweb", *options, "--val-tokens", "5K", "--shard-tokens", "10K")
    assert result.returncode == 0, result.stderr
    assert "ended before 1,000,000,000 training tokens" in result.stdout
    splits = [read(tmp_path / "out", split) for split in ("val", "test", "train")]
    assert np.array_equal(np.concatenate(splits), GPT2().encode(few))


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_other_arguments_are_refused_and_the_same_do_nothing(cli, parquet, undisturbed):
    before = shard_bytes(undisturbed)
    command = ["fineweb", "--dataset", parquet, "--out", undisturbed, *SIZES]
    result = cli(*command, "--tokens", "2M")
    assert result.returncode == 2
    assert "tokens 1500000, now 2000000" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "complete already" in cli(*command, "--workers", 2).stdout  # not of the recipe
    assert shard_bytes(undisturbed) == before


@pytest.mark.usefixtures("gpt2_vocabulary")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--text-column", "body"), "no column 'body'; choose --text-column from: id, text"),
        (("--text-column", "id"), "'id' is int, not text"),
        (("--name", "x"), "Hugging Face only"),
    ],
)
def test_wrong_columns_are_told_in_one_line(cli, tmp_path, parquet, options, reason):
    result = cli("fineweb", "--dataset", parquet, "--out", tmp_path, "--workers", 1, *options)
    assert result.returncode == 2
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("gpt2_vocabulary")
@pytest.mark.parametrize("dataset", ["nowhere.parquet", "broken.jsonl"])
def test_absent_or_broken_files_are_told_in_one_line(cli, tmp_path, dataset):
    (tmp_path / "broken.jsonl").write_text("{")
    result = cli("fineweb", "--dataset", tmp_path / dataset, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert dataset in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_without_network_it_says_so_in_one_line(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    result = cli("fineweb", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "'HuggingFaceFW/fineweb' cannot be opened" in result.stderr
    assert "--dataset FILE.parquet" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_directory_keeps_the_revision_that_it_began_with(tmp_path, monkeypatch):
    import huggingface_hub

    class Hub:
        def dataset_info(self, dataset):
            return argparse.Namespace(sha=f"newest of {dataset}")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    parser = argparse.ArgumentParser()
    fineweb.add_arguments(parser)
    args = parser.parse_args(["--out", str(tmp_path)])
    assert fineweb.source_of(args).arguments() == {
        "dataset": "HuggingFaceFW/fineweb",
        "name": "sample-10BT",
        "split": "train",
        "text_column": "text",
        "revision": "newest of HuggingFaceFW/fineweb",
    }
    progress = {"recipe": {"arguments": {"revision": "the old one"}}}
    (tmp_path / "progress.json").write_text(json.dumps(progress))
    assert fineweb.source_of(args).revision == "the old one"
    other = parser.parse_args(["--dataset", "some/text", "--revision", "abc", "--out", "x"])
    assert (fineweb.source_of(other).name, fineweb.source_of(other).revision) == (None, "abc")


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_ctrl_c_is_one_line_and_leaves_no_process(tmp_path, parquet):
    command = [sys.executable, "-m", "data", "fineweb", "--dataset", parquet, "--out", tmp_path]
    process = subprocess.Popen(
        [*map(str, command), *map(str, SIZES)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # if it is ignored here
    )
    while not (tmp_path / "fineweb_train_000000.bin").exists():
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.endswith("interrupted; the same command goes on after the last whole shard\n")
    assert "Traceback" not in stderr
    assert _all_gone(_group(process.pid))


def _group(leader: int) -> list[int]:
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(path.read_text().rsplit(")", 1)[1].split()[2]) == leader:
                members.append(int(path.parent.name))
    return members
