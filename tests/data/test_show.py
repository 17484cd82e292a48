"""`python -m data show`: the text of one update of a run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from data import Loader, open_split
from data.__main__ import main as data
from tests.jobs import command, only_run, tiny_shards
from train_gpt2 import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 12 updates of 16 sequences of 32 bytes, and its data."""
    folder = tmp_path_factory.mktemp("show")
    assert main(command(tiny_shards(folder / "tokens"), folder / "runs")) == 0
    return only_run(folder / "runs")


def shown(capsys, *words):
    code = data(["show", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_it_prints_the_text_of_every_sequence_of_the_batch(trained, capsys):
    code, out, _ = shown(capsys, trained, 7)
    assert code == 0
    tokens = open_split(trained.parent.parent / "tokens", "train", vocab_size=256)
    batch = Loader(tokens, block_size=32, batch_size=16, data_seed=1).global_batch(7)
    head, *parts = out.split("---- sequence ")
    assert head == f"{trained}: update 7, 16 sequences of 32 tokens\n"
    texts = [part.partition("\n")[2].removesuffix("\n") for part in parts]
    assert texts == [bytes(row.astype(np.uint8)).decode() for row in batch]
    # and says where it lies
    where = parts[3].partition("\n")[0]
    name, first = where.partition("(")[2].partition(", tokens ")[::2]
    at = int(first.partition(" ")[0].replace(",", ""))
    shard = next(s for p, s in zip(tokens.paths, tokens.shards, strict=True) if p.name == name)
    assert np.array_equal(shard[at : at + 33], batch[3])


def test_a_rank_has_its_rows(trained, capsys, tmp_path):
    folder = tmp_path / "of_two"
    shutil.copytree(trained, folder)
    record = json.loads((folder / "record.json").read_text())
    record["launches"][-1]["environment"] |= {"world_size": 2, "start_step": 0}
    record["launches"].append({"environment": {"world_size": 4, "start_step": 9}})
    (folder / "record.json").write_text(json.dumps(record))
    parts = [shown(capsys, folder, 8, "--rank", rank)[1].split("---- ")[1:] for rank in (0, 1)]
    assert parts[0] + parts[1] == shown(capsys, folder, 8)[1].split("---- ")[1:]
    assert len(shown(capsys, folder, 9, "--rank", 3)[1].split("---- ")) == 1 + 4
    code, _, said = shown(capsys, folder, 8, "--rank", 2)
    assert (code, said.count("\n")) == (2, 1)
    assert "had ranks 0 to 1 at this update, not 2" in said


def test_ids_are_printed_where_no_tokenizer_is_known(trained, capsys, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    text = (folder / "config.toml").read_text().replace("vocab_size = 256", "vocab_size = 300")
    (folder / "config.toml").write_text(text)
    ids = shown(capsys, folder, 0)[1].splitlines()[2].split()
    assert len(ids) == 33
    assert all(0 <= int(word) < 256 for word in ids)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["{folder}", "3"], "is no folder of a run: it has no config.toml"),
        (["{run}", "12"], "has updates 0 to 11, not 12"),
        (["{run}", "-1"], "has updates 0 to 11, not -1"),
    ],
)
def test_what_is_not_there_is_one_line(trained, capsys, tmp_path, words, problem):
    given = [word.format(folder=tmp_path, run=trained) for word in words]
    code, _, said = shown(capsys, *given)
    assert (code, said.count("\n")) == (2, 1)
    assert problem in said


def test_data_that_have_changed_are_refused(trained, capsys, tmp_path):
    folder, tokens = tmp_path / "run", tmp_path / "tokens"
    shutil.copytree(trained, folder)
    shutil.copytree(trained.parent.parent / "tokens", tokens)
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace(str(trained.parent.parent), str(tmp_path)))
    assert shown(capsys, folder, 3)[0] == 0
    path = tokens / "tiny_train_000000.bin"
    raw = path.read_bytes()  # a header of 1,024 bytes, then two bytes for each token
    path.write_bytes(raw[:1024] + np.frombuffer(raw[1024:], "<u2")[::-1].tobytes())
    code, out, said = shown(capsys, folder, 3)
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert "no longer holds what the run began with" in said
