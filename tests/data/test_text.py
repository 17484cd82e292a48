"""Texts of one's own: whole documents, each in one split."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data import DataError, open_splits
from data.text import Corpus, Shares, cut, find_files
from data.vocabulary import Bytes
from tests.data.reading import documents, read


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
    splits = [read(tmp_path / "out", s, vocab_size=257) for s in ("val", "test", "train")]
    found = [d for split in splits for d in documents(split, 256)]
    assert {Bytes().decode(np.frombuffer(d, np.uint16)[1:].tolist()).strip() for d in found} == {
        paragraph.strip() for paragraph in paragraphs
    }
    assert len(found) == 200
    assert min(len(documents(split, 256)) for split in splits) > 5


def test_text_documents_are_in_one_split_whole_and_in_order(cli, tmp_path):
    texts = [f"Text {i}: {'ä' * (i % 7)}\n" for i in range(150)]
    write_files(tmp_path / "in", [*texts, texts[3], texts[4]])
    out = tmp_path / "out"
    result = cli("text", tmp_path / "in", "--tokenizer", "bytes", "--out", out, "--workers", 2)
    assert result.returncode == 0, result.stderr
    train = documents(read(out, "train", vocab_size=257), 256)
    val = documents(read(out, "val", vocab_size=257), 256)
    test = documents(read(out, "test", vocab_size=257), 256)
    for one, other in itertools.combinations((train, val, test), 2):
        assert not {*one} & {*other}  # not even the copies
    expected = [Bytes().encode([text]).tobytes() for text in [*texts, texts[3], texts[4]]]
    assert sorted(train + val + test) == sorted(expected)
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


def test_binary_files_are_skipped_with_a_line(cli, tmp_path):
    write_files(tmp_path / "in", [f"Text {i}\n\n" * 40 for i in range(120)])
    (tmp_path / "in" / "a.png").write_bytes(b"\x89PNG\0\0")
    command = ("text", tmp_path / "in", "--tokenizer", "bytes", "--workers", 1)
    result = cli(*command, "--out", tmp_path / "out")
    assert result.returncode == 0
    first, *_ = result.stdout.splitlines()
    assert first == f"skipped 1 binary file (with zero bytes): {tmp_path}/in/a.png"
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["arguments"]["files"] == 120
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.bin").write_bytes(b"\0")
    result = cli("text", tmp_path / "none", "--tokenizer", "bytes", "--out", tmp_path / "x")
    assert result.returncode == 2
    assert "nothing but 1 binary file" in result.stderr


def test_too_few_documents_are_refused_before_anything_is_written(cli, tmp_path):
    write_files(tmp_path / "in", ["only one"])
    result = cli("text", tmp_path / "in", "--tokenizer", "bytes", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "too few" in result.stderr
    assert not (tmp_path / "out").exists()


def test_hidden_files_stay_out_and_patterns_choose(tmp_path):
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


def test_shares_of_documents_are_as_asked():
    shares = Shares(val=0.1, test=0.3)
    found = Counter(shares.split_of(f"document {i}") for i in range(5000))
    assert 400 < found["val"] < 600
    assert 1350 < found["test"] < 1650


def test_a_test_split_changes_no_document_of_val():
    texts = [f"document {i}" for i in range(1000)]
    val = [{t for t in texts if Shares(0.1, test).split_of(t) == "val"} for test in (0, 0.1)]
    assert val[0] == val[1]


def test_without_a_share_for_test_there_is_no_test_split(cli, tmp_path):
    write_files(tmp_path / "in", [f"Text {i}" for i in range(150)])
    command = ("text", tmp_path / "in", "--tokenizer", "bytes", "--out", tmp_path / "out")
    result = cli(*command, "--test-fraction", 0, "--workers", 1)
    assert result.returncode == 0
    assert "; test" not in result.stdout
    assert list(open_splits(tmp_path / "out", vocab_size=257)) == ["train", "val"]
    result = cli(*command)
    assert "(test_fraction 0.0, now 0.1)" in result.stderr


def metadata(out: Path) -> dict:
    return json.loads((out / "meta.json").read_text())


def test_defaults_are_those_of_the_help(cli, tmp_path):
    """Below 100 files, documents end at the first blank line after 4,096 characters; val: 0.1."""
    write_files(tmp_path / "in", ["\n\n".join(f"{i} " * 20 for i in range(5000))])
    out = tmp_path / "out"
    result = cli("text", tmp_path / "in", "--tokenizer", "bytes", "--out", out)
    assert result.returncode == 0
    recorded = metadata(out)
    assert recorded["source"] == "text"
    arguments = recorded["arguments"]
    assert arguments.pop("text_sha256")
    assert arguments == {
        "files": 1,
        "least_chars": 4096,
        "val_fraction": 0.1,
        "test_fraction": 0.1,
    }


@pytest.mark.parametrize(
    ("count", "flags", "least_chars"),
    [
        (99, (), 4096),
        (100, (), None),
        (2, ("--split-on", "file"), None),
        (100, ("--split-on", "blank-line", "--document-chars", 7), 7),
        (100, ("--split-on", "auto"), None),
    ],
)
def test_documents_end_at_blank_lines_or_with_the_file(cli, tmp_path, count, flags, least_chars):
    write_files(tmp_path / "in", [f"Text {i}.\n\n" * 900 for i in range(count)])
    out = tmp_path / "out"
    options = ("--tokenizer", "bytes", "--val-fraction", 0.5, "--test-fraction", 0)
    options += ("--out", out, "--workers", 1)
    assert cli("text", tmp_path / "in", *options, *flags).returncode == 0
    assert metadata(out)["arguments"]["least_chars"] == least_chars


@pytest.mark.parametrize("fraction", [0, 1, 1.5])
def test_share_of_validation_lies_between_0_and_1(cli, tmp_path, fraction):
    write_files(tmp_path / "in", ["a", "b"])
    result = cli("text", tmp_path / "in", "--val-fraction", fraction, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert f"--val-fraction {fraction:g}; valid: between 0 and 1" in result.stderr


@pytest.mark.parametrize("fraction", [-0.1, 0.75, 1])
def test_share_of_test_leaves_something_for_training(cli, tmp_path, fraction):
    write_files(tmp_path / "in", ["a", "b"])
    options = ("--val-fraction", 0.25, "--test-fraction", fraction, "--out", tmp_path / "out")
    result = cli("text", tmp_path / "in", *options)
    assert result.returncode == 2
    assert f"--test-fraction {fraction:g}; valid: from 0 to below 0.75" in result.stderr


def test_a_written_directory_is_told_from_one_that_was_complete(cli, tmp_path):
    write_files(tmp_path / "in", [f"Text {i}.\n" for i in range(120)])
    command = ("text", tmp_path / "in", "--tokenizer", "bytes", "--out", tmp_path / "out")
    assert f"{tmp_path / 'out'} written: " in cli(*command).stdout
    assert f"{tmp_path / 'out'} is complete already: " in cli(*command).stdout


def test_files_of_several_paths_are_all_taken_once(tmp_path):
    write_files(tmp_path / "a", ["1", "2"])
    write_files(tmp_path / "b", ["3"])
    single = tmp_path / "a" / "0001.txt"
    found = find_files([single, tmp_path / "b", tmp_path / "a"], "*")
    assert found == [single, tmp_path / "b" / "0000.txt", tmp_path / "a" / "0000.txt"]


def test_survey_counts_documents_and_refuses_an_empty_split(tmp_path):
    write_files(tmp_path / "in", [f"Text {i}.\n" for i in range(20)])
    files = find_files([tmp_path / "in"], "*")
    for val, test, message in (
        (1e-9, 0, "0 to val, 20 to train"),
        (1 - 1e-9, 0, "20 to val, 0 to train"),
        (0.5, 1e-9, "12 to val, 0 to test, 8 to train"),
    ):
        with pytest.raises(DataError) as caught:
            Corpus(files, None, Shares(val, test)).survey()
        assert str(caught.value).startswith(f"20 documents are too few ({message}); ")
    half = Corpus(files, None, Shares(0.5, 0))
    splits = {split: list(half.documents(split)) for split in ("train", "val")}
    split_of = half.shares.split_of
    assert all(split_of(d) == split for split, found in splits.items() for d in found)
    assert sorted(splits["train"] + splits["val"]) == sorted(f"Text {i}.\n" for i in range(20))


def test_a_piece_ends_at_the_first_blank_line_that_makes_it_long_enough():
    assert list(cut("abcd\n\nef\n\ngh", 6)) == ["abcd\n\n", "ef\n\ngh"]
    assert list(cut("abcd\n\nef\n\ngh", 7)) == ["abcd\n\nef\n\n", "gh"]
    assert list(cut("abcd\n\nef\n\n", 6)) == ["abcd\n\n", "ef\n\n"]
    assert list(cut("abcd\n\n", 6)) == ["abcd\n\n"]


def test_line_endings_and_letters_are_kept_as_they_are(cli, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(120):
        (tmp_path / "in" / f"{i:03}.txt").write_bytes(f"Zeile {i}\r\nä\r".encode())
    out = tmp_path / "out"
    assert cli("text", tmp_path / "in", "--tokenizer", "bytes", "--out", out).returncode == 0
    found = documents(read(out, "train", vocab_size=257), 256)
    first = Bytes().decode(np.frombuffer(found[0], np.uint16)[1:].tolist())
    assert first.startswith("Zeile ")
    assert first.endswith("\r\nä\r")
