"""What the writers of all sources share."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from datetime import UTC, datetime

import numpy as np
import pytest

from data import DataError, Tokens, open_split
from data.formats import write_shard
from data.shards import SPLITS
from data.writer import Recipe, opened, recorded_arguments, split_by_hash, write_documents
from storage import lock
from tests.data.reading import read, refusal


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
    sizes = {split: len(read(tmp_path, split, vocab_size=2)) for split in SPLITS}
    assert sizes == {"train": 1000, "val": 2000, "test": 2000}


def test_two_writers_of_one_directory_are_refused(cli, tmp_path):
    with lock(tmp_path):
        result = cli("coinflip", "--out", tmp_path)
    assert result.returncode == 2
    assert f"in use by host {socket.gethostname()} pid {os.getpid()}" in result.stderr


def test_writers_leave_the_index_that_readers_need(cli, tmp_path, monkeypatch):
    import data.index

    cli("coinflip", "--out", tmp_path, "--train-tokens", 1000, "--val-tokens", 1000)
    monkeypatch.setattr(data.index, "scan", lambda tokens: pytest.fail("scanned again"))
    assert isinstance(open_split(tmp_path, "val", vocab_size=2), Tokens)


def with_one_bit_flipped(path):
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # of a token's lower byte
    path.write_bytes(content)


@pytest.mark.parametrize("index", ["is there", "is gone"])
def test_one_flipped_bit_in_a_shard_of_ours_is_refused_by_name(cli, tmp_path, index):
    cli("coinflip", "--out", tmp_path, "--train-tokens", 1000, "--val-tokens", 1000)
    with_one_bit_flipped(tmp_path / "coinflip_train_000000.bin")
    if index == "is gone":
        (tmp_path / "index.json").unlink()
    assert len(read(tmp_path, "val", vocab_size=2)) == 1000
    said = refusal(tmp_path, "train", vocab_size=50257)
    assert "coinflip_train_000000.bin: its tokens have changed since they were written" in said
    assert len(set(re.findall(r"\b[0-9a-f]{8}\b", said))) == 2


def test_inspect_reads_all_bytes_again_whatever_the_index_says(cli, tmp_path):
    """A disk that forgets a bit changes no time of the file."""
    cli("coinflip", "--out", tmp_path, "--train-tokens", 1000, "--val-tokens", 1000)
    shard = tmp_path / "coinflip_train_000000.bin"
    known = json.loads((tmp_path / "index.json").read_text())
    with_one_bit_flipped(shard)
    times = {"mtime_ns": shard.stat().st_mtime_ns, "ctime_ns": shard.stat().st_ctime_ns}
    known["files"][shard.name] |= times
    (tmp_path / "index.json").write_text(json.dumps(known))
    assert len(read(tmp_path, vocab_size=2)) == 1000  # the index is believed
    result = cli("inspect", tmp_path)
    assert result.returncode == 2
    assert f"{shard}: its tokens have changed" in result.stderr


def test_a_folder_of_an_earlier_version_without_hashes_is_read(cli, tmp_path):
    cli("coinflip", "--out", tmp_path, "--train-tokens", 1000, "--val-tokens", 1000)
    meta = json.loads((tmp_path / "meta.json").read_text())
    for split in meta["splits"].values():
        for shard in split["shards"]:
            del shard["sha256"]
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert len(read(tmp_path, vocab_size=2)) == 1000
    small = ("--train-tokens", 1000, "--val-tokens", 1000)
    assert "is complete already" in cli("coinflip", "--out", tmp_path, *small).stdout


@pytest.mark.parametrize("meta", ["[]", '{"splits": 3}', '{"splits": {"train": {"shards": [5]}}}'])
def test_meta_json_of_another_program_is_left_alone(tmp_path, meta):
    write_shard(tmp_path / "x_train_0.bin", np.arange(5, dtype=np.uint16))
    (tmp_path / "meta.json").write_text(meta)
    assert len(read(tmp_path)) == 5


# ---- one output, shard by shard ----


def a_recipe(**changes):
    fields = {"source": "x", "tokenizer": "bytes", "vocab_size": 257, "eot_id": 256,
              "arguments": {"seed": 1}, "command": "python -m data x"}  # fmt: skip
    return Recipe(**fields | changes)


def uint16(*values):
    return np.array(values, dtype=np.uint16)


@pytest.fixture
def begun(tmp_path):
    """A directory with one validation shard of three tokens, and the place where it stopped."""
    with opened(tmp_path, a_recipe(), shard_tokens=3) as output:
        assert output.fill(uint16(256, 7, 8, 9)) == 3
        output.write({"file": 1, "at": 3})
    return tmp_path


def sha256(*ids):
    return hashlib.sha256(b"".join(i.to_bytes(2, "little") for i in ids)).hexdigest()


def progress(directory):
    return json.loads((directory / "progress.json").read_text())


def test_a_shard_takes_what_it_has_room_for(tmp_path):
    with opened(tmp_path, a_recipe(), shard_tokens=5) as output:
        assert (output.split, output.position, output.full) == ("val", None, False)
        assert output.fill(uint16(256, 1, 2)) == 3
        assert (output.tokens("val"), output.tokens("train"), output.full) == (3, 0, False)
        assert output.fill(uint16(3, 4, 5)) == 2
        assert output.full
        assert output.fill(uint16(5)) == 0
        output.write({"at": 5}, next_split="train")
        assert (output.tokens("val"), output.tokens("train")) == (5, 0)
        output.fill(uint16(256, 256))
        output.write(None)
        output.write(None)  # nothing is left to write: no empty shard
        assert output.split == "train"
        output.finish()
    assert read(tmp_path, "val", vocab_size=257).tolist() == [256, 1, 2, 3, 4]
    assert read(tmp_path, "train", vocab_size=257).tolist() == [256, 256]
    meta = json.loads((tmp_path / "meta.json").read_text())
    created = datetime.fromisoformat(meta.pop("created"))
    assert abs((datetime.now(UTC) - created).total_seconds()) < 100
    val, train = sha256(256, 1, 2, 3, 4), sha256(256, 256)
    assert meta == {
        "source": "x",
        "tokenizer": "bytes",
        "vocab_size": 257,
        "eot_id": 256,
        "arguments": {"seed": 1},
        "splits": {
            "val": {
                "tokens": 5,
                "documents": 1,
                "shards": [
                    {"name": "x_val_000000.bin", "tokens": 5, "documents": 1, "sha256": val}
                ],
            },
            "train": {
                "tokens": 2,
                "documents": 2,
                "shards": [
                    {"name": "x_train_000000.bin", "tokens": 2, "documents": 2, "sha256": train}
                ],
            },
            "test": {"tokens": 0, "documents": None, "shards": []},
        },
    }
    assert not (tmp_path / "progress.json").exists()


def test_the_place_is_on_disk_before_the_first_shard_and_after_each(tmp_path, monkeypatch):
    seen = []

    def write(path, tokens):
        seen.append((path.name, progress(tmp_path)["position"]))
        write_shard(path, tokens)

    monkeypatch.setattr("data.writer.write_shard", write)
    with opened(tmp_path, a_recipe(), shard_tokens=2) as output:
        for place in (1, 2):
            output.fill(uint16(7, 8))
            output.write({"place": place})
    assert seen == [("x_val_000000.bin", None), ("x_val_000001.bin", {"place": 1})]
    shard = {"tokens": 2, "documents": 0, "sha256": sha256(7, 8)}
    assert progress(tmp_path) == {
        "command": "python -m data x",
        "recipe": a_recipe().key(),
        "split": "val",
        "shards": {
            "train": [],
            "test": [],
            "val": [{"name": f"x_val_00000{i}.bin"} | shard for i in range(2)],
        },
        "position": {"place": 2},
    }


def test_an_interrupted_output_goes_on_from_its_place(begun):
    leftover = begun / ".x_val_000001.bin.1.tmp"
    leftover.write_bytes(b"half")
    (begun / "mine.tmp").write_bytes(b"kept")
    with opened(begun, a_recipe(command="another spelling"), shard_tokens=3) as output:
        assert (output.split, output.position) == ("val", {"file": 1, "at": 3})
        assert (output.tokens("val"), output.tokens("train")) == (3, 0)
        assert not leftover.exists()
        assert (begun / "mine.tmp").exists()
        output.fill(uint16(9))
        output.write(None, next_split="train")
    with opened(begun, a_recipe(), shard_tokens=3) as output:
        assert (output.split, output.position) == ("train", None)
    assert sorted(p.name for p in begun.glob("*.bin")) == ["x_val_000000.bin", "x_val_000001.bin"]


def test_a_complete_directory_needs_no_output(begun):
    with opened(begun, a_recipe(), shard_tokens=3) as output:
        output.finish()
    with opened(begun, a_recipe(), shard_tokens=3) as output:
        assert output is None


@pytest.mark.parametrize("finished", [False, True])
def test_other_arguments_are_named_with_both_values(begun, finished):
    if finished:
        with opened(begun, a_recipe(), shard_tokens=3) as output:
            output.finish()
    other = a_recipe(vocab_size=50257, arguments={"seed": 2, "new": None, "p": 0.5})
    with pytest.raises(DataError) as caught, opened(begun, other, shard_tokens=3):
        pass
    assert str(caught.value) == (
        f"{begun} was made with other arguments (vocab_size 257, now 50257, seed 1, now 2,"
        " p None, now 0.5); choose another directory with --out, or remove that one"
    )


# ---- folders that were made before there was a test split ----


def without_test(file):
    """Rewrite meta.json or progress.json as it was then."""
    content = json.loads(file.read_text())
    for part in ("splits", "shards"):
        content.get(part, {}).pop("test", None)
    arguments = content.get("recipe", content)["arguments"]
    arguments.pop("test_tokens", None)
    file.write_text(json.dumps(content))


def test_a_complete_directory_without_a_test_split_stays_valid(cli, tmp_path):
    command = ("coinflip", "--out", tmp_path, "--train-tokens", 1000, "--val-tokens", 1000)
    assert cli(*command).returncode == 0
    (tmp_path / "coinflip_test_000000.bin").unlink()
    without_test(tmp_path / "meta.json")
    result = cli(*command)
    assert result.returncode == 0
    assert "complete already: train 1,000 tokens; val 1,000 tokens; vocab_size 2\n" in result.stdout
    assert "no test split; to get one, remove the folder and give the command again" in (
        result.stdout
    )
    other = cli(*command, "--p", 0.5)
    assert "made with other arguments (p 0.666, now 0.5)" in other.stderr
    assert "test: none, so runs are judged on val" in cli("inspect", tmp_path).stdout


def test_a_begun_directory_without_a_test_split_goes_on(begun):
    without_test(begun / "progress.json")
    recipe = a_recipe(arguments={"seed": 1, "test_tokens": 5})
    with opened(begun, recipe, shard_tokens=3) as output:
        assert (output.split, output.tokens("val"), output.tokens("test")) == ("val", 3, 0)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("gone", "is gone"),
        ("cut", "is damaged (1,028 bytes, not 1,030)"),
        ("other", "does not hold 3 tokens any more"),
    ],
)
def test_a_shard_that_is_not_as_it_was_written_is_named(begun, damage, fault):
    path = begun / "x_val_000000.bin"
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-2])
    else:
        write_shard(path, uint16(1, 2))
    for _ in range(2):
        with pytest.raises(DataError) as caught, opened(begun, a_recipe(), shard_tokens=3):
            pass
        assert str(caught.value) == f"{path} {fault}; remove {begun} and make it again"


def test_shards_from_elsewhere_are_named_and_kept(tmp_path):
    for name in ("b.bin", "a.bin"):
        (tmp_path / name).write_bytes(b"theirs")
    with pytest.raises(DataError) as caught, opened(tmp_path, a_recipe(), shard_tokens=3):
        pass
    assert str(caught.value) == (
        f"{tmp_path} already holds shards from elsewhere (a.bin, ...); choose another directory"
        " with --out"
    )
    assert [(tmp_path / name).read_bytes() for name in ("a.bin", "b.bin")] == [b"theirs"] * 2


@pytest.mark.parametrize("size", [0, 2**31])
def test_a_shard_has_one_token_to_what_its_header_can_count(tmp_path, size):
    message = rf"shards of {size} tokens; valid: 1 to 2,147,483,647"
    with pytest.raises(DataError, match=message), opened(tmp_path, a_recipe(), shard_tokens=size):
        pass
    for valid in (1, 2**31 - 1):
        with opened(tmp_path, a_recipe(), shard_tokens=valid) as output:
            assert output.shard_tokens == valid


def test_whole_documents_fill_shard_after_shard(tmp_path):
    recipe = a_recipe(eot_id=None)
    with opened(tmp_path, recipe, shard_tokens=2) as output:
        write_documents(output, "val", [uint16(1, 2, 3), uint16(), uint16(4, 5)])
        write_documents(output, "train", [uint16(6, 7)])
        output.finish()
    sizes = [shard.tokens for shard in output.shards["val"]]
    assert sizes == [2, 2, 1]
    assert [shard.documents for shard in output.shards["val"]] == [None, None, None]
    assert read(tmp_path, "val", vocab_size=257).tolist() == [1, 2, 3, 4, 5]
    assert read(tmp_path, "train", vocab_size=257).tolist() == [6, 7]
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["splits"]["val"]["documents"] is None
    assert meta["splits"]["train"] == {
        "tokens": 2,
        "documents": None,
        "shards": [
            {"name": "x_train_000000.bin", "tokens": 2, "documents": None, "sha256": sha256(6, 7)}
        ],
    }


def test_a_split_that_was_begun_and_has_no_place_begins_again(begun):
    with opened(begun, a_recipe(), shard_tokens=3) as output:
        write_documents(output, "val", [uint16(4)])
        assert output.tokens("val") == 1
    assert recorded_shards(begun) == ["x_val_000000.bin"]


def recorded_shards(directory):
    return [shard["name"] for shard in progress(directory)["shards"]["val"]]


def test_a_directory_that_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    with opened(tmp_path, a_recipe(), shard_tokens=3) as output:
        monkeypatch.setattr("data.writer.write_json", refuse)
        for write in (lambda: output.write(None), output.finish):
            with pytest.raises(DataError) as caught:
                write()
            assert str(caught.value) == f"{tmp_path} cannot be written: No space left on device"
    monkeypatch.setattr("data.writer.lock", refuse)
    with pytest.raises(DataError) as caught, opened(tmp_path, a_recipe(), shard_tokens=3):
        pass
    assert str(caught.value) == f"{tmp_path} cannot be written: No space left on device"


def test_one_writer_at_a_time(tmp_path):
    again = opened(tmp_path, a_recipe(), shard_tokens=3)
    with (
        opened(tmp_path, a_recipe(), shard_tokens=3),
        pytest.raises(DataError, match=r"in use by host .*; wait until it ends"),
        again,
    ):
        pass
    with opened(tmp_path, a_recipe(), shard_tokens=3):
        pass  # it was let go


def test_arguments_are_remembered_while_begun_and_when_complete(begun, tmp_path):
    assert recorded_arguments(begun) == {"seed": 1}
    with opened(begun, a_recipe(), shard_tokens=3) as output:
        output.finish()
    assert recorded_arguments(begun) == {"seed": 1}
    assert recorded_arguments(tmp_path / "nowhere") == {}


def test_the_index_has_the_largest_id_and_the_hash_of_each_shard(begun):
    (entry,) = json.loads((begun / "index.json").read_text())["files"].values()
    assert (entry["largest_id"], entry["sha256"]) == (256, sha256(256, 7, 8))


def test_documents_are_split_by_a_hash_of_their_text():
    texts = [f"text {i}" for i in range(400)]
    expected = []
    for text in texts:
        place = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)
        expected.append("val" if place / 2**64 < 0.25 else "train")
    assert [split_by_hash(text, 0.25) for text in texts] == expected
    assert 70 < expected.count("val") < 130
    assert {split_by_hash(text, 0.0) for text in texts} == {"train"}
    assert {split_by_hash(text, 1.0) for text in texts} == {"val"}


def test_an_output_of_nothing_can_be_finished(tmp_path):
    with opened(tmp_path, a_recipe(), shard_tokens=3) as output:
        output.finish()
    meta = json.loads((tmp_path / "meta.json").read_text())
    nothing = {"tokens": 0, "documents": None, "shards": []}
    assert meta["splits"] == {"val": nothing, "train": nothing, "test": nothing}
