"""HellaSwag's questions: read, refused, and shared by ranks."""

import hashlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from data import DataError
from data.hellaswag import HellaSwag
from data.vocabulary import GPT2
from tests.jobs import ROOT

QUESTIONS = ROOT / "tests/hellaswag.jsonl"  # a dozen of our own, in HellaSwag's form
ROWS = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
pytestmark = pytest.mark.usefixtures("gpt2_vocabulary")


def opened(source=QUESTIONS, block_size=64, **ranks):
    return HellaSwag.opened(str(source), None, 50257, block_size=block_size, **ranks)


def written(folder, *rows):
    path = folder / "questions.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_row_is_the_context_and_an_ending_after_a_space_and_only_the_ending_has_targets():
    quiz, encode = opened(), GPT2()._encoding.encode_ordinary
    tokens, targets = quiz._rows(np.array([2, 7]))
    assert tokens.shape == targets.shape == (8, quiz.lengths[[2, 7]].max())
    for i, (place, ending) in enumerate((place, x) for place in (2, 7) for x in range(4)):
        context = encode(ROWS[place]["ctx"])
        scored = encode(" " + ROWS[place]["endings"][ending])
        n = len(context) + len(scored) - 1
        assert tokens[i, :n].tolist() == [*context, *scored][:-1]
        assert targets[i].tolist()[len(context) - 1 : n] == scored
        outside = [*targets[i, : len(context) - 1], *targets[i, n:]]
        assert all(x == -100 for x in outside)


@pytest.mark.parametrize("world_size", [1, 2, 3, 20])
def test_ranks_share_the_questions_and_keep_what_goes_through_together(monkeypatch, world_size):
    monkeypatch.setattr("data.hellaswag.PASS_TOKENS", 300)
    whole = [tuple(places) for places in opened().passes()]
    assert 3 < len(whole) < 12
    assert sorted(place for places in whole for place in places) == [*range(12)]
    lengths = opened().lengths
    assert all(4 * len(p) * max(lengths[[*p]]) <= 300 or len(p) == 1 for p in whole)
    shares = [opened(rank=r, world_size=world_size).passes() for r in range(world_size)]
    assert sorted(tuple(places) for share in shares for places in share) == sorted(whole)


def test_the_hub_gives_its_validation_split_whose_labels_are_strings(monkeypatch):
    asked = []

    def load_dataset(*words, **options):
        asked.append((words, options))
        return [row | {"label": str(row["label"]), "ind": 4} for row in ROWS]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    quiz = opened("hub")
    assert asked == [(("Rowan/hellaswag",), {"split": "validation"})]
    assert quiz.labels.tolist() == [row["label"] for row in ROWS]
    assert quiz.hash == opened().hash


def test_other_questions_have_another_hash(tmp_path):
    given = json.dumps([[row["ctx"], row["endings"], row["label"]] for row in ROWS])
    assert opened().hash == hashlib.sha256(given.encode()).hexdigest()
    other = [*ROWS[:-1], ROWS[-1] | {"label": 0}]
    assert opened(written(tmp_path, *other)).hash != opened().hash


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    row = ROWS[0] | {"ctx": "one\u2028two\x85three"}
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    assert len(opened(path)) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "Invalid JSON"),
        ("", "Invalid JSON"),
        ({}, "ctx: Field required"),
        (ROWS[0] | {"ctx": ""}, "ctx: String should have at least 1 character"),
        (ROWS[0] | {"endings": ["a", "b", "c"]}, "endings.3: Field required"),
        (ROWS[0] | {"endings": ["a"] * 5}, "endings: "),
        (ROWS[0] | {"label": 4}, "label: Input should be less than 4"),
        (ROWS[0] | {"label": ""}, "label: Input should be a valid integer"),  # the test split
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path, line, said):
    path = written(tmp_path, ROWS[0], line, ROWS[1])
    with pytest.raises(DataError) as caught:
        opened(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2 is no question of HellaSwag (")
    assert said in message
    assert "endings (4 texts) and label (0 to 3)" in message
    assert "\n" not in message


def test_what_cannot_be_had_is_one_line(monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"'/no/such\.jsonl' cannot be read \(FileNotFoundError"):
        opened("/no/such.jsonl")
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"cannot be read \(UnicodeDecodeError"):
        opened(tmp_path / "x")

    def load_dataset(*_, **__):
        raise ConnectionError("no route to the hub\nmore")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"hub \(ConnectionError: no route to the hub\)") as it:
        opened("hub")
    assert "\n" not in str(it.value)
    monkeypatch.setitem(sys.modules, "datasets", None)  # not installed
    with pytest.raises(DataError, match=r"hub \(ModuleNotFoundError: "):
        opened("hub")


def test_the_longest_question_must_fit():
    longest = int(opened().lengths.max())
    assert len(opened(block_size=longest)) == 12
    said = f"more than block_size {longest - 1}; .* of {longest} or more"
    with pytest.raises(DataError, match=said):
        opened(block_size=longest - 1)


@pytest.mark.parametrize(
    ("meta", "size", "said"),
    [
        (None, 257, "has 257, made by 'bytes'"),
        (None, 300, "has 300: leave"),
        ('{"tokenizer": "bytes"}', 50257, "has 50257, made by 'bytes'"),
        ('{"tokenizer": "gpt2"}', 50304, "has 50304, made by 'gpt2'"),
    ],
)
def test_other_vocabularies_than_that_of_gpt2_are_refused(tmp_path, meta, size, said):
    if meta:
        (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(DataError, match=said):
        HellaSwag.opened(str(QUESTIONS), tmp_path, size, block_size=64)
