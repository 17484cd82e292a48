from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import pytest

from data import DataError, Tokens, fineweb, open_split
from data.coinflip import entropy, flip
from data.console import count
from data.stdlib import source_files
from data.text import Corpus, cut
from data.vocabulary import GPT2, Bytes, tokenizer_named
from storage import lock

from .conftest import ROOT

EOT = 50256


def all_tokens(directory: Path, split: str, vocab_size: int = 50257) -> np.ndarray:
    return np.concatenate(open_split(directory, split, vocab_size=vocab_size).shards)


def documents(tokens: np.ndarray, eot_id: int = EOT) -> list[bytes]:
    starts = np.flatnonzero(tokens == eot_id)
    return [piece.tobytes() for piece in np.split(tokens, starts) if len(piece)]


def shard_bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.bin"))}


# ---- tokenizers ----


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_gpt2_tokens_of_shakespeare_are_the_known_number(shakespeare):
    tokens = GPT2().encode([shakespeare])
    assert len(tokens) == 1 + 338_025
    assert tokens[0] == EOT
    assert tokens.dtype == np.uint16
    assert GPT2().decode(tokens[1:].tolist()) == shakespeare


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_spelled_out_end_of_text_is_text():
    assert np.count_nonzero(GPT2().encode(["a <|endoftext|> b", ""]) == EOT) == 2


def test_bytes_round_trip():
    tokens = Bytes().encode(["ä\n", "", "z"])
    assert tokens.tolist() == [256, 0xC3, 0xA4, 10, 256, 256, ord("z")]
    assert Bytes().decode(tokens.tolist()) == "<|endoftext|>ä\n<|endoftext|><|endoftext|>z"


def test_missing_vocabulary_says_how_to_provide_it(monkeypatch, tmp_path):
    import tiktoken

    def unreachable(name):
        raise OSError("Name or service not known")

    monkeypatch.setattr(tiktoken, "get_encoding", unreachable)
    with pytest.raises(DataError, match="TIKTOKEN_CACHE_DIR") as caught:
        tokenizer_named("gpt2")
    assert "\n" not in str(caught.value)


# ---- stdlib ----


def test_stdlib_is_written_once_with_disjoint_files(cli, tmp_path):
    start = time.perf_counter()
    result = cli("stdlib", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - start < 15  # 1 s on two idle cores
    before = shard_bytes(tmp_path)
    train = documents(all_tokens(tmp_path, "train", 257), 256)
    val = documents(all_tokens(tmp_path, "val", 257), 256)
    assert set(train) & set(val) <= {documents(Bytes().encode([""]), 256)[0]}  # empty __init__.py
    sizes = [sum(map(len, split)) for split in (train, val)]
    assert 0.03 < sizes[1] / sum(sizes) < 0.12
    assert sizes[0] > 8e6  # two bytes per token
    again = cli("stdlib", "--out", tmp_path)
    assert again.returncode == 0
    assert "complete already" in again.stdout
    assert again.stdout.count("\n") == 1
    assert shard_bytes(tmp_path) == before


def test_stdlib_leaves_packages_and_tests_out(tmp_path):
    for name in ("a.py", "b/c.py", "b/test/d.py", "site-packages/e.py", "f.txt", "idlelib/g.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "_sysconfigdata__linux.py").touch()
    assert list(source_files(tmp_path)) == ["a.py", "b/c.py"]


def test_stdlib_of_another_python_is_not_taken_for_this_one(cli, tmp_path):
    assert cli("stdlib", "--out", tmp_path).returncode == 0
    meta = json.loads((tmp_path / "meta.json").read_text())
    meta["arguments"]["python"] = "3.8.1"
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    result = cli("stdlib", "--out", tmp_path)
    assert result.returncode == 2
    assert "python '3.8.1', now" in result.stderr


# ---- coinflip ----


def test_coinflip_has_the_entropy_it_prints(cli, tmp_path):
    result = cli("coinflip", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    floor = float(re.search(r"is ([\d.]+) nats", result.stdout)[1])
    assert floor == pytest.approx(-0.666 * math.log(0.666) - 0.334 * math.log(0.334), abs=1e-6)
    for split, length in {"train": 2_000_000, "val": 1_000_000}.items():
        tokens = all_tokens(tmp_path, split, vocab_size=2)
        assert len(tokens) == length
        heads = tokens.mean()
        assert abs(-heads * math.log(0.666) - (1 - heads) * math.log(0.334) - floor) < 0.002
        # Independent: the entropy of a flip given the three before it is no lower.
        context = tokens[:-3] * 4 + tokens[1:-2] * 2 + tokens[2:-1]
        given_context = [tokens[3:][context == c].mean() for c in range(8)]
        assert max(given_context) - min(given_context) < 0.01


def test_coinflip_seeds_and_splits_differ_and_parts_do_not_matter():
    def flips(length, **options):
        return np.concatenate(list(flip(0.5, length, **({"seed": 1, "stream": 0} | options))))

    assert not np.array_equal(flips(1000), flips(1000, seed=2))
    assert not np.array_equal(flips(1000), flips(1000, stream=1))
    assert np.array_equal(flips(1000), flips(2**20 + 5)[:1000])
    assert entropy(0.5) == pytest.approx(math.log(2))


@pytest.mark.parametrize("p", ["0", "1", "1.5", "-1", "nan"])
def test_coinflip_refuses_what_is_no_coin(cli, tmp_path, p):
    result = cli("coinflip", f"--p={p}", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "between 0 and 1" in result.stderr


# ---- text ----


def write_files(folder: Path, texts: list[str]) -> None:
    folder.mkdir()
    for i, text in enumerate(texts):
        (folder / f"{i:04d}.txt").write_text(text, encoding="utf-8")


def test_cut_pieces_joined_are_the_text(shakespeare):
    pieces = list(cut(shakespeare, 4096))
    assert "".join(pieces) == shakespeare
    assert all(len(piece) >= 4096 for piece in pieces[:-1])
    assert all(piece.endswith("\n") for piece in pieces[:-1])
    assert list(cut("abc", None)) == ["abc"]
    assert list(cut("", 10)) == []


def test_one_file_is_split_at_blank_lines_without_loss(cli, tmp_path):
    paragraphs = [f"Paragraph {i}. " + "word " * 50 for i in range(200)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    options = ("--tokenizer", "bytes", "--document-chars", 1, "--out", tmp_path / "out")
    assert cli("text", tmp_path / "book.txt", *options, "--workers", 1).returncode == 0
    splits = [all_tokens(tmp_path / "out", split, 257) for split in ("val", "train")]
    found = [d for split in splits for d in documents(split, 256)]
    assert {Bytes().decode(np.frombuffer(d, np.uint16)[1:].tolist()).strip() for d in found} == {
        paragraph.strip() for paragraph in paragraphs
    }
    assert len(found) == 200
    assert len(documents(splits[0], 256)) > 5


def test_text_documents_are_in_one_split_whole_and_in_order(cli, tmp_path):
    texts = [f"Text {i}: {'ä' * (i % 7)}\n" for i in range(150)]
    write_files(tmp_path / "in", [*texts, texts[3], texts[4]])
    out = tmp_path / "out"
    result = cli("text", tmp_path / "in", "--tokenizer", "bytes", "--out", out, "--workers", 2)
    assert result.returncode == 0, result.stderr
    train = documents(all_tokens(out, "train", 257), 256)
    val = documents(all_tokens(out, "val", 257), 256)
    assert not set(train) & set(val)  # not even the copies
    expected = [Bytes().encode([text]).tobytes() for text in [*texts, texts[3], texts[4]]]
    assert sorted(train + val) == sorted(expected)
    assert [d for d in expected if d in set(train)] == train
    meta = json.loads((out / "meta.json").read_text())
    assert meta["splits"]["val"]["documents"] == len(val)
    assert (meta["tokenizer"], meta["vocab_size"], meta["eot_id"]) == ("bytes", 257, 256)


def test_changed_text_is_not_taken_for_the_old(cli, tmp_path):
    write_files(tmp_path / "in", [f"Text {i}" for i in range(150)])
    command = ("text", tmp_path / "in", "--tokenizer", "bytes", "--out", tmp_path / "out")
    assert cli(*command, "--workers", 1).returncode == 0
    (tmp_path / "in" / "0003.txt").write_text("changed")
    result = cli(*command)
    assert result.returncode == 2
    assert "text_sha256" in result.stderr


def test_file_that_is_not_utf8_is_named(cli, tmp_path):
    write_files(tmp_path / "in", ["x"] * 3)
    (tmp_path / "in" / "bad.txt").write_bytes(b"abc\xff")
    result = cli("text", tmp_path / "in", "--tokenizer", "bytes", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "bad.txt is not UTF-8 (byte 3)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_too_few_documents_are_refused_before_anything_is_written(cli, tmp_path):
    write_files(tmp_path / "in", ["only one"])
    result = cli("text", tmp_path / "in", "--tokenizer", "bytes", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "too few" in result.stderr
    assert not (tmp_path / "out").exists()


def test_hidden_files_stay_out_and_patterns_choose(tmp_path):
    from data.text import find_files

    for name in ("a.txt", "b.md", ".git/c.txt", "d/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [f.name for f in find_files([tmp_path], "*")] == ["a.txt", "b.md", "e.txt"]
    assert [f.name for f in find_files([tmp_path, tmp_path / "a.txt"], "*.txt")] == [
        "a.txt",
        "e.txt",
    ]
    with pytest.raises(DataError, match="does not exist"):
        find_files([tmp_path / "nowhere"], "*")


def test_share_of_validation_documents_is_as_asked():
    corpus = Corpus([], None, 0.1)
    val = sum(corpus.split_of(f"document {i}") == "val" for i in range(5000))
    assert 400 < val < 600


# ---- fineweb: any dataset, local here ----


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
def undisturbed(tmp_path_factory, parquet) -> Path:
    environment = os.environ.copy()
    vocabulary = ROOT.parent / "shared" / "tokenizer"
    if "TIKTOKEN_CACHE_DIR" not in environment:
        if not vocabulary.is_dir():
            pytest.skip(f"no TIKTOKEN_CACHE_DIR, and {vocabulary} is absent")
        environment["TIKTOKEN_CACHE_DIR"] = str(vocabulary)
    out = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "data", "fineweb", "--dataset", parquet, "--out", out, *SIZES]
    subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True)
    return out


@pytest.mark.usefixtures("gpt2_vocabulary")
def test_fineweb_shards_are_the_documents_in_order(undisturbed, real_documents):
    expected = GPT2().encode(real_documents)
    val, train = all_tokens(undisturbed, "val"), all_tokens(undisturbed, "train")
    assert np.array_equal(np.concatenate([val, train]), expected[: len(val) + len(train)])
    assert len(train) == 1_500_000
    assert expected[len(val)] == EOT  # the splits change between two documents
    ends = np.flatnonzero(expected == EOT)
    assert len(val) == ends[ends >= 60_000][0]  # and at the first such place
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
    assert "--val-tokens 400,000" in result.stderr
    result = cli("fineweb", *options, "--val-tokens", "5K", "--shard-tokens", "10K")
    assert result.returncode == 0, result.stderr
    assert "ended before 1,000,000,000 training tokens" in result.stdout
    splits = [all_tokens(tmp_path / "out", split) for split in ("val", "train")]
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


# ---- what all writers share ----


def test_directory_with_shards_from_elsewhere_is_refused(cli, tmp_path):
    (tmp_path / "fineweb_train_000001.bin").write_bytes(b"theirs")
    result = cli("coinflip", "--out", tmp_path)
    assert result.returncode == 2
    assert "from elsewhere" in result.stderr
    assert (tmp_path / "fineweb_train_000001.bin").read_bytes() == b"theirs"


def test_another_source_is_refused(cli, tmp_path):
    small = ("--train-tokens", 1000, "--val-tokens", 1000)
    assert cli("coinflip", "--out", tmp_path, *small).returncode == 0
    result = cli("stdlib", "--out", tmp_path)
    assert result.returncode == 2
    assert "source 'coinflip', now 'stdlib'" in result.stderr


@pytest.mark.parametrize("damage", ["remove", "cut"])
def test_complete_directory_with_a_damaged_shard_is_not_called_complete(cli, tmp_path, damage):
    small = ("--train-tokens", 1000, "--val-tokens", 1000)
    assert cli("coinflip", "--out", tmp_path, *small).returncode == 0
    shard = tmp_path / "coinflip_val_000000.bin"
    if damage == "remove":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-2])
    result = cli("coinflip", "--out", tmp_path, *small)
    assert result.returncode == 2
    assert "coinflip_val_000000.bin" in result.stderr


def test_small_source_that_was_interrupted_starts_again(tmp_path, monkeypatch):
    from data.__main__ import main
    from data.writer import Output

    def interrupt(output):
        raise KeyboardInterrupt

    command = ["coinflip", "--out", str(tmp_path), "--train-tokens", "1K", "--val-tokens", "2K"]
    with monkeypatch.context() as patch:
        patch.setattr(Output, "finish", interrupt)
        assert main(command) == 130
    with pytest.raises(DataError, match="python -m data coinflip --out"):
        open_split(tmp_path, "train", vocab_size=2)
    assert main(command) == 0
    sizes = {split: len(all_tokens(tmp_path, split, 2)) for split in ("train", "val")}
    assert sizes == {"train": 1000, "val": 2000}


def test_two_writers_of_one_directory_are_refused(cli, tmp_path):
    with lock(tmp_path):
        result = cli("coinflip", "--out", tmp_path)
    assert result.returncode == 2
    assert f"in use by host {socket.gethostname()} pid {os.getpid()}" in result.stderr


def test_writers_leave_the_index_that_readers_need(cli, tmp_path, monkeypatch):
    import data.shards

    cli("coinflip", "--out", tmp_path, "--train-tokens", 1000, "--val-tokens", 1000)
    monkeypatch.setattr(data.shards, "_largest_id", lambda tokens: pytest.fail("scanned again"))
    assert isinstance(open_split(tmp_path, "val", vocab_size=2), Tokens)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1B", 10**9), ("2.5m", 2_500_000), ("100_000", 100_000), ("1,000", 1000), ("10K", 10_000)],
)
def test_token_counts_are_read(text, number):
    assert count(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "B", "1e6", "1 G", "0.0001K"])
def test_other_token_counts_are_refused(text):
    with pytest.raises(ArgumentTypeError, match="1B"):
        count(text)
