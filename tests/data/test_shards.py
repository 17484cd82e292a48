"""Shards: the three formats that are read, the one that is written, and what is refused."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

import data.index
import data.shards
from data import DataError, MissingShards, open_split, open_splits
from data.formats import write_shard
from data.shards import SPLITS, find_shards
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


def test_an_npz_archive_named_npy_is_refused(tmp_path):
    np.savez(tmp_path / "x_train_0.npz", TOKENS)
    (tmp_path / "x_train_0.npz").rename(tmp_path / "x_train_0.npy")
    assert "x_train_0.npy: an .npz archive, not a .npy array" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("<u4", "looks like 32-bit tokens, because of 2 uint16 numbers only the first is"),
        ("<i8", "looks like 64-bit tokens, because of 4 uint16 numbers only the first is"),
    ],
)
@pytest.mark.parametrize("vocab_size", [256, 50257, 200_000])
def test_a_headerless_file_of_wider_integers_is_refused(tmp_path, dtype, message, vocab_size):
    tokens = np.random.default_rng(1).integers(vocab_size, size=1000)
    tokens.astype(dtype).tofile(tmp_path / "train.bin")
    assert message in refusal(tmp_path, format="nanogpt")


@pytest.mark.parametrize("tokens", [np.arange(4000) % 50257, np.arange(4000) % 2, np.zeros(4000)])
def test_uint16_tokens_of_any_kind_are_not_taken_for_wider_ones(tmp_path, tokens):
    tokens.astype("<u2").tofile(tmp_path / "train.bin")
    assert read(tmp_path, format="nanogpt").tolist() == tokens.tolist()


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
    assert "names both train and val" in refusal(tmp_path)


def test_beside_train_or_val_test_is_a_word_like_any_other(tmp_path):
    for name in ("test_train_0.bin", "val_test.bin", "a_test_0.bin", "tested.bin"):
        write_shard(tmp_path / name, TOKENS)
    found = {split: [p.name for p in find_shards(tmp_path, split)] for split in SPLITS}
    assert found == {
        "train": ["test_train_0.bin"],
        "val": ["val_test.bin"],
        "test": ["a_test_0.bin"],
    }


def test_only_the_test_split_may_be_absent(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    with pytest.raises(MissingShards, match="no shards for split val"):
        open_splits(tmp_path, vocab_size=50257)
    write_shard(tmp_path / "x_val_0.bin", TOKENS)
    assert list(open_splits(tmp_path, vocab_size=50257)) == ["train", "val"]
    write_shard(tmp_path / "x_test_0.bin", TOKENS)
    splits = open_splits(tmp_path, vocab_size=50257)
    assert {split: tokens.split for split, tokens in splits.items()} == {s: s for s in SPLITS}
    write_shard(tmp_path / "x_test_0.bin", np.array([50257], np.uint16))
    with pytest.raises(DataError, match=r"x_test_0\.bin: holds token id 50257"):
        open_splits(tmp_path, vocab_size=50257)


def test_same_split_in_two_formats_is_refused(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    np.save(tmp_path / "x_train_0", TOKENS)
    assert "both as .bin and as .npy" in refusal(tmp_path)


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


# ---- words and limits ----


def test_unknown_split_and_format_are_told_the_valid_ones(tmp_path):
    assert refusal(tmp_path, "dev") == "split 'dev' is unknown; valid: train, val, test"
    assert refusal(tmp_path, format="csv") == ("data.format 'csv' is unknown; valid: auto, nanogpt")


def test_absence_is_told_apart(tmp_path):
    make = (
        "; make some with `python -m data fineweb --tokens 1B`, or run the quickstart, which needs"
        " no network, with `make train`"
    )
    both = "(looked for *_val_*.bin, val.bin, *_val_*.npy, val.npy)"
    start = "no shards for split val: "
    nowhere = tmp_path / "nowhere"
    assert refusal(nowhere, "val") == (
        f"{start}the directory {nowhere} does not exist {both}{make}"
    )
    assert (
        refusal(tmp_path, "val") == f"{start}the directory {tmp_path} holds no shards {both}{make}"
    )
    write_shard(tmp_path / "b_train_0.bin", TOKENS)
    write_shard(tmp_path / "a_0.bin", TOKENS)
    assert refusal(tmp_path, "val", format="nanogpt") == (
        f"{start}none of the 2 shards in {tmp_path} (a_0.bin, ...) is named so"
        f" (looked for *_val_*.bin, val.bin){make}"
    )


def test_nanogpt_leaves_npy_files_alone(tmp_path):
    TOKENS.tofile(tmp_path / "train.bin")
    np.save(tmp_path / "a_train_0", TOKENS)
    assert [p.name for p in find_shards(tmp_path, "train", "nanogpt")] == ["train.bin"]
    with pytest.raises(DataError, match=r"both as \.bin and as \.npy"):
        find_shards(tmp_path, "train")


def test_a_folder_named_like_a_shard_is_none(tmp_path):
    (tmp_path / "a_train_0.bin").mkdir()
    with pytest.raises(MissingShards, match="holds no shards"):
        find_shards(tmp_path, "train")


def test_finished_directory_may_hold_the_progress_that_led_to_it(tmp_path):
    write_shard(tmp_path / "x_train_0.bin", TOKENS)
    (tmp_path / "progress.json").write_text("{}")
    assert refusal(tmp_path) == (
        f"{tmp_path} is not finished; run `python -m data ...` again: it goes on where it stopped"
    )
    (tmp_path / "meta.json").write_text("{}")
    assert len(read(tmp_path)) == 8


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            24,
            "2 shards are more files than this process may open; raise the limit with `ulimit -n`",
        ),
        (5, "x_train_0.bin cannot be read: [Errno 5] no luck: 'x_train_0.bin'"),
    ],
)
def test_shards_that_the_system_will_not_open(tmp_path, monkeypatch, number, message):
    for i in range(2):
        write_shard(tmp_path / f"x_train_{i}.bin", TOKENS)

    def fail(path, format):
        raise OSError(number, "no luck", path.name)

    monkeypatch.setattr(data.shards, "map_shard", fail)
    assert refusal(tmp_path) == message


INFINITY = resource.RLIM_INFINITY  # -1 on Linux: no number to compare with


@pytest.mark.parametrize(
    ("soft", "hard", "lifted"),
    [
        (512 + 3, 4096, None),  # enough for 3 shards and the rest of the process
        (512 + 2, 4096, 512 + 3),
        (100, 300, 300),  # as far as the hard limit goes
        (100, 100, 100),
        (100, INFINITY, 512 + 3),
        (INFINITY, INFINITY, None),
    ],
)
def test_the_soft_limit_of_open_files_is_lifted_as_far_as_needed(
    tmp_path, monkeypatch, soft, hard, lifted
):
    calls = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: calls.append((which, limits)))
    for i in range(3):
        write_shard(tmp_path / f"x_train_{i}.bin", TOKENS)
    assert len(read(tmp_path)) == 24
    assert calls == ([] if lifted is None else [(resource.RLIMIT_NOFILE, (lifted, hard))])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file; remove it"),
        (
            np.array([20240801], "<i4").tobytes(),
            "llm.c's uint32 Llama-3 tokens; only uint16 tokens (GPT-2) are read",
        ),
        (
            b"abc",
            "no llm.c header (magic 20240520); if it is nanoGPT's headerless uint16 file, say so"
            " with --data.format nanogpt",
        ),
        (
            np.array([20240520, 1, 5], "<i4").tobytes(),
            "truncated inside the header, 12 of 1024 bytes",
        ),
    ],
)
def test_a_file_that_is_no_shard_says_what_it_may_be(tmp_path, content, message):
    path = tmp_path / "x_train_0.bin"
    path.write_bytes(content)
    assert refusal(tmp_path) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"version": 2}, "header version 2, this reader knows version 1"),
        ({"count": 0}, "the header promises 0 tokens; remove the shard"),
        (
            {"count": 2000},
            "truncated, 3,984 bytes are missing (the header promises 2,000 tokens, 5,024 bytes; the"
            " file has 1,040); download or write the shard again",
        ),
        (
            {"count": 7},
            "2 bytes too many (the header promises 7 tokens, 1,038 bytes; the file has 1,040);"
            " download or write the shard again",
        ),
    ],
)
def test_a_damaged_header_is_told_with_its_numbers(tmp_path, header, message):
    path = tmp_path / "x_train_0.bin"
    write_like_llm_c(path, TOKENS, **header)
    assert refusal(tmp_path) == f"{path}: {message}"


def test_a_shard_of_one_token_is_read_in_every_format(tmp_path):
    for name in ("bin", "npy", "nanogpt"):
        (tmp_path / name).mkdir()
    write_like_llm_c(tmp_path / "bin" / "a_train_0.bin", TOKENS[:1])
    np.save(tmp_path / "npy" / "a_train_0", TOKENS[:1])
    TOKENS[:1].tofile(tmp_path / "nanogpt" / "train.bin")
    assert read(tmp_path / "bin").tolist() == read(tmp_path / "npy").tolist() == [50256]
    assert read(tmp_path / "nanogpt", format="nanogpt").tolist() == [50256]
    for name in ("bin", "npy", "nanogpt"):
        (shard,) = open_split(
            tmp_path / name,
            "train",
            vocab_size=50257,  # one more than the largest id
            format="nanogpt" if name == "nanogpt" else "auto",
        ).shards
        assert not shard.flags.writeable


def test_pickled_arrays_are_never_loaded(tmp_path):
    np.save(tmp_path / "x_train_0", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "truncated or not a .npy array" in refusal(tmp_path)


def test_largest_id_is_found_in_any_piece(monkeypatch):
    for place in range(5):
        tokens = np.zeros(5, np.uint16)
        tokens[place] = 7
        pieces = list(data.index.in_pieces(tokens, 2))
        assert [len(piece) for piece in pieces] == [2, 2, 1]
        assert max(int(piece.max()) for piece in pieces) == 7
        assert np.shares_memory(pieces[0], tokens)
    long = np.zeros(2**24 + 1, np.uint16)
    assert [len(piece) for piece in data.index.in_pieces(long)] == [2**24, 1]


def test_only_uint16_is_written_and_never_a_part_of_it(tmp_path):
    with pytest.raises(AssertionError):
        write_shard(tmp_path / "a.bin", TOKENS.astype(np.int32))
    assert not list(tmp_path.iterdir())
    write_shard(tmp_path / "a_train_0.bin", np.repeat(TOKENS, 2)[::2])  # not contiguous in memory
    assert read(tmp_path).tolist() == TOKENS.tolist()


def test_a_split_knows_where_it_comes_from(tmp_path):
    for i in range(2):
        write_shard(tmp_path / f"x_val_{i}.bin", TOKENS[2:])
    tokens = open_split(str(tmp_path), "val", vocab_size=50257)
    assert (tokens.directory, tokens.split, tokens.num_tokens) == (tmp_path, "val", 12)
    assert tokens.paths == [tmp_path / "x_val_0.bin", tmp_path / "x_val_1.bin"]


def test_more_tokens_than_a_header_can_count_are_not_written(tmp_path):
    with pytest.raises(AssertionError, match="the header's count is an int32"):
        write_shard(tmp_path / "a.bin", np.broadcast_to(np.uint16(1), 2**31))
    write_shard(tmp_path / "a_train_0.bin", np.repeat(TOKENS, 100))
    assert len(read(tmp_path)) == 800


@pytest.mark.parametrize("size", [0, 1, 7])
def test_headerless_files_hold_whole_tokens(tmp_path, size):
    path = tmp_path / "train.bin"
    path.write_bytes(bytes(size))
    assert refusal(tmp_path, format="nanogpt") == (
        f"{path}: {size} bytes are not a whole number of uint16 tokens"
    )


def test_what_numpy_says_of_a_damaged_array_is_passed_on(tmp_path):
    (tmp_path / "x_train_0.npy").write_bytes(b"\x93NUMPY")
    message = refusal(tmp_path)
    assert "truncated or not a .npy array (" in message
    assert "None" not in message
