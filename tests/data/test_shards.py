"""Shards: the three formats that are read, the one that is written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data import MissingShards, open_split
from data.shards import find_shards, write_shard
from tests.data.reading import read, refusal

TOKENS = np.array([50256, 15496, 995, 0, 1, 2, 3, 50255], dtype=np.uint16)


def write_like_llm_c(path: Path, tokens: np.ndarray, **header: int) -> None:
    """As dev/data/data_common.py of llm.c and data/fineweb.py of modded-nanogpt lay it out."""
    fields = {"magic": 20240520, "version": 1, "count": len(tokens)} | header
    with path.open("wb") as file:
        ints = np.zeros(256, dtype=np.int32)
        ints[0], ints[1], ints[2] = fields["magic"], fields["version"], fields["count"]
        file.write(ints.tobytes())
        file.write(tokens.astype(np.uint16).tobytes())


def test_reads_modded_nanogpt_shards_in_order_of_name(tmp_path):
    write_like_llm_c(tmp_path / "fineweb_val_000000.bin", TOKENS[:2])
    write_like_llm_c(tmp_path / "fineweb_train_000002.bin", TOKENS[4:])
    write_like_llm_c(tmp_path / "fineweb_train_000001.bin", TOKENS[:4])
    assert read(tmp_path).tolist() == TOKENS.tolist()
    assert read(tmp_path, "val").tolist() == TOKENS[:2].tolist()
    assert open_split(tmp_path, "train", vocab_size=50257).num_tokens == len(TOKENS)


def test_reads_llm_c_file_names_without_number(tmp_path):
    write_like_llm_c(tmp_path / "tiny_shakespeare_train.bin", TOKENS)
    write_like_llm_c(tmp_path / "TinyStories_val.bin", TOKENS[:3])
    assert len(read(tmp_path)) == 8
    assert len(read(tmp_path, "val")) == 3


def test_reads_build_nanogpt_shards(tmp_path):
    # np.save of a uint16 array; the name has no extension there, np.save adds it.
    np.save(tmp_path / "edufineweb_val_000000", TOKENS[:3])
    np.save(tmp_path / "edufineweb_train_000001", TOKENS)
    assert read(tmp_path).tolist() == TOKENS.tolist()
    assert read(tmp_path, "val").tolist() == TOKENS[:3].tolist()


def test_reads_nanogpt_files_when_asked_by_name(tmp_path):
    TOKENS.tofile(tmp_path / "train.bin")
    TOKENS[:3].tofile(tmp_path / "val.bin")
    assert read(tmp_path, format="nanogpt").tolist() == TOKENS.tolist()
    assert read(tmp_path, "val", format="nanogpt").tolist() == TOKENS[:3].tolist()


def test_headerless_file_is_refused_by_auto_with_the_option_to_give(tmp_path):
    TOKENS.tofile(tmp_path / "train.bin")
    assert "--data.format nanogpt" in refusal(tmp_path)


def test_file_with_header_is_refused_as_nanogpt(tmp_path):
    write_like_llm_c(tmp_path / "train.bin", TOKENS)
    assert "llm.c's header" in refusal(tmp_path, format="nanogpt")


def test_written_shards_have_llm_c_layout(tmp_path):
    write_shard(tmp_path / "a_train_0.bin", TOKENS)
    write_like_llm_c(tmp_path / "b.bin", TOKENS)
    assert (tmp_path / "a_train_0.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_shards_are_mapped_not_read(tmp_path):
    write_shard(tmp_path / "a_train_0.bin", TOKENS)
    (shard,) = open_split(tmp_path, "train", vocab_size=50257).shards
    assert isinstance(shard, np.memmap)
    assert not shard.flags.writeable


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"magic": 20240801}, "Llama-3"),
        ({"magic": 1}, "no llm.c header"),
        ({"version": 2}, "version 2"),
        ({"count": 0}, "promises 0 tokens"),
        ({"count": -1}, "promises -1 tokens"),
        ({"count": 9}, "truncated, 2 bytes are missing"),
        ({"count": 7}, "2 bytes too many"),
    ],
)
def test_bad_header_is_named_with_the_shard(tmp_path, header, reason):
    write_like_llm_c(tmp_path / "x_train_0.bin", TOKENS)
    write_like_llm_c(tmp_path / "x_train_1.bin", TOKENS, **header)
    message = refusal(tmp_path)
    assert reason in message
    assert "x_train_1.bin" in message


@pytest.mark.parametrize("size", [0, 3, 100, 1023, 1024, 1027])
def test_file_cut_at_any_place_is_refused(tmp_path, size):
    path = tmp_path / "x_train_0.bin"
    write_like_llm_c(path, TOKENS)
    path.write_bytes(path.read_bytes()[:size])
    assert "x_train_0.bin" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (TOKENS.astype(np.int32), "int32"),
        (TOKENS.astype(">u2"), ">u2"),
        (TOKENS.reshape(2, 4), "shape (2, 4)"),
        (TOKENS[:0], "no tokens"),
    ],
)
def test_npy_of_another_kind_is_refused(tmp_path, array, reason):
    np.save(tmp_path / "x_train_0", array)
    assert reason in refusal(tmp_path)


@pytest.mark.parametrize(("change", "reason"), [(-3, "truncated"), (5, "5 bytes too many")])
def test_npy_of_another_length_is_refused(tmp_path, change, reason):
    np.save(tmp_path / "x_train_0", TOKENS)
    raw = (tmp_path / "x_train_0.npy").read_bytes()
    changed = raw[:change] if change < 0 else raw + bytes(change)
    (tmp_path / "x_train_0.npy").write_bytes(changed)
    assert reason in refusal(tmp_path)


def test_odd_length_of_headerless_file_is_refused(tmp_path):
    (tmp_path / "train.bin").write_bytes(bytes(7))
    assert "7 bytes" in refusal(tmp_path, format="nanogpt")


def test_token_beyond_the_vocabulary_is_refused_with_the_size_to_set(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    message = refusal(tmp_path, vocab_size=50256)
    assert "50256" in message
    assert "50257" in message
    assert "x_train_0.bin" in message


def test_absent_shards_say_what_was_looked_for_and_how_to_get_some(tmp_path):
    for directory in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(MissingShards) as caught:
            open_split(directory, "val", vocab_size=2)
        message = str(caught.value)
        expected = ("val", str(directory), "*_val_*.bin", "val.bin", "*_val_*.npy", "make train")
        assert all(part in message for part in expected)
        assert "python -m data fineweb --tokens 1B" in message


def test_shards_of_no_split_are_mentioned(tmp_path):
    write_shard(tmp_path / "fineweb_000000.bin", TOKENS)
    assert "fineweb_000000.bin" in refusal(tmp_path)


def test_split_is_a_whole_word_of_the_name(tmp_path):
    for name in ("restrained_0.bin", "interval.bin", "valid_0.bin", ".x_train_0.bin"):
        (tmp_path / name).touch()
    (tmp_path / "a-train.bin").touch()
    (tmp_path / "b_train_0.bin").touch()
    assert [path.name for path in find_shards(tmp_path, "train")] == [
        "a-train.bin",
        "b_train_0.bin",
    ]
    with pytest.raises(MissingShards):
        find_shards(tmp_path, "val")


def test_name_with_both_splits_is_refused(tmp_path):
    (tmp_path / "train_val_0.bin").touch()
    assert "names both splits" in refusal(tmp_path)


def test_same_split_in_two_formats_is_refused(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    np.save(tmp_path / "x_train_0", TOKENS)
    assert "both as .bin and as .npy" in refusal(tmp_path)


@pytest.mark.parametrize(("split", "format"), [("test", "auto"), ("train", "parquet")])
def test_unknown_words_are_refused_with_the_valid_ones(tmp_path, split, format):
    assert "valid:" in refusal(tmp_path, split, format=format)


def test_unfinished_directory_is_refused_with_the_command(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    (tmp_path / "progress.json").write_text('{"command": "python -m data fineweb --tokens 5"}')
    assert "python -m data fineweb --tokens 5" in refusal(tmp_path)


def test_more_shards_than_the_soft_limit_of_open_files(tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(list(Path("/dev/fd").iterdir()))
    for i in range(40):
        write_shard(tmp_path / f"x_train_{i:06d}.bin", TOKENS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 20, hard))
    try:
        assert open_split(tmp_path, "train", vocab_size=50257).num_tokens == 320
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
