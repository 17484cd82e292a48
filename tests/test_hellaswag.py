"""HellaSwag during training and of trained models: against a slow oracle, and without a trace."""

import json
import re

import pytest
import torch
import torch.nn.functional as F

from analysis.__main__ import main as analysis
from analysis.trained import trained
from configs import Model
from data.hellaswag import HellaSwag
from data.vocabulary import GPT2
from record import checkpoints, hellaswag
from record.runlog import read_metrics, read_record, read_summary
from tests.data.test_hellaswag import QUESTIONS, ROWS, opened
from tests.jobs import assert_same, command, end_of, finish, only_run, ranks
from tests.test_bad_input import refused
from train_gpt2 import GPT, main

pytestmark = pytest.mark.usefixtures("gpt2_vocabulary")
SHAPE = Model(vocab_size=50257, block_size=64, n_layer=1, n_head=2, n_embd=8)


def losses(logits_of, row):
    """Of each ending: sum and mean over its tokens, nats; one at a time, without padding."""
    encode, found = GPT2()._encoding.encode_ordinary, []
    for ending in row["endings"]:
        context, scored = encode(row["ctx"]), encode(" " + ending)
        with torch.no_grad():
            logits = logits_of(torch.tensor([context + scored]))[0, len(context) - 1 : -1]
        nats = F.cross_entropy(logits, torch.tensor(scored), reduction="none")
        found.append((nats.sum().item(), nats.mean().item()))
    return found


def oracle(logits_of):
    """1.0 for each question whose right ending has the lowest loss: by sums, and by means."""
    answers = []
    for row in ROWS:
        by_sum, by_mean = zip(*losses(logits_of, row), strict=True)
        answers.append([x.index(min(x)) == row["label"] for x in (by_sum, by_mean)])
    return torch.tensor(answers).float().T.tolist()


def wild(seed):
    """A model whose answers differ."""
    model = GPT.initialised(SHAPE, seed)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5, generator=torch.Generator().manual_seed(seed))
    return model


def test_answers_are_those_of_a_slow_oracle_for_any_sharing(monkeypatch):
    told_apart = 0
    for seed in (1, 2):
        model = wild(seed)
        not_normalised, expected = oracle(model.logits)
        told_apart += expected != not_normalised
        assert opened().right(model).tolist() == expected
        monkeypatch.setattr("data.hellaswag.PASS_TOKENS", 300)
        parts = [opened(rank=rank, world_size=2).right(model) for rank in range(2)]
        assert all(part.any() for part in parts)
        assert sum(parts).tolist() == expected
        monkeypatch.undo()
    assert told_apart, "the length of an ending matters to some answer"


def test_accuracy_and_interval_are_those_of_the_answers():
    found = hellaswag.numbers(torch.tensor([1.0, 0, 1, 1] * 25), "_ema")
    # Wilson's interval by its formula
    p, n, z = 0.75, 100, 1.959964
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = ((centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    assert found == {
        "hellaswag/acc_norm_ema": 0.75,
        "hellaswag/low_ema": pytest.approx(low, abs=1e-6),
        "hellaswag/high_ema": pytest.approx(high, abs=1e-6),
        "hellaswag/questions": 100,
    }


def arguments(shards, runs, *more):
    settings = {
        **{f"model.{key}": value for key, value in SHAPE.model_dump().items()},
        "train.total_steps": 2,
        "train.batch_tokens": 128,
        "train.micro_batch_size": 1,
        "optimizer.lr": 0.1,
        "eval.every": 2,
        "eval.tokens": 128,
    }
    flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return [*command(shards, runs), *flags, *more]


ASK = ["--eval.hellaswag", str(QUESTIONS)]


@pytest.fixture(scope="module")
def plain(shards, tmp_path_factory):
    """A finished run that was asked nothing."""
    runs = tmp_path_factory.mktemp("plain")
    assert main(arguments(shards, runs)) == 0
    return only_run(runs)


@pytest.fixture(scope="module")
def asked(shards, tmp_path_factory, vocabulary_folder):
    """The same run, asked at its evaluations, and what it printed."""
    runs = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", vocabulary_folder)
        assert main(arguments(shards, runs, *ASK)) == 0
    return only_run(runs)


def without_answers(lines):
    return [{k: v for k, v in x.items() if not k.startswith("hellaswag/")} for x in lines]


def test_training_and_the_name_of_the_run_are_the_same_with_and_without(plain, asked):
    assert asked.name == plain.name
    lines, state = end_of(asked)
    assert_same(end_of(plain), (without_answers(lines), state))


def test_every_evaluation_is_in_the_record_and_the_last_in_the_summary(asked):
    lines = [x for x in read_metrics(asked) if "val/loss" in x]
    assert [x["step"] for x in lines] == [0, 2]
    model = trained(str(asked), "cpu").model
    accuracy = sum(oracle(model.logits)[1]) / 12
    assert lines[-1]["hellaswag/acc_norm"] == pytest.approx(accuracy)
    assert all(x["hellaswag/low"] < x["hellaswag/high"] for x in lines)
    assert all(x["hellaswag/questions"] == 12 for x in lines)
    summary = read_summary(asked)
    for key in ("acc_norm", "low", "high", "questions"):
        assert summary[f"final_hellaswag_{key}"] == lines[-1][f"hellaswag/{key}"]
    assert read_record(asked)["hashes"]["hellaswag"] == opened().hash


def test_two_ranks_give_the_same_answers_and_a_person_sees_them(shards, asked, tmp_path):
    processes = ranks(arguments(shards, tmp_path / "runs", *ASK), 2)
    outputs = [finish(process) for process in processes]
    run = only_run(tmp_path / "runs")
    assert [(x["step"], x["hellaswag/acc_norm"]) for x in end_of(run)[0] if "val/loss" in x] == [
        (x["step"], x["hellaswag/acc_norm"]) for x in end_of(asked)[0] if "val/loss" in x
    ]
    accuracy = read_summary(run)["final_hellaswag_acc_norm"]
    assert re.search(rf"step 2/2  val loss \S+  HellaSwag {accuracy:.4f}\n", outputs[0])
    assert f"\nHellaSwag {accuracy:.4f} (95 % interval " in outputs[0]
    assert f"; HellaSwag from {QUESTIONS}" in outputs[0]


def test_weights_that_answer_are_those_of_the_val_loss_and_averages_stand_beside_them(
    shards, tmp_path, monkeypatch
):
    seen, right = [], HellaSwag.right

    def spied(self, model):
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return right(self, model)

    monkeypatch.setattr(HellaSwag, "right", spied)
    words = ["--optimizer.wrap.ema.decay", "0.5", "--optimizer.wrap.ema.judged", "true"]
    assert main(arguments(shards, tmp_path / "runs", *ASK, *words)) == 0
    run = only_run(tmp_path / "runs")
    saved = checkpoints.load(checkpoints.found(run / "checkpoints")[0])
    judged, raw = seen[-2:]
    assert_same({name: saved.evaluated[name] for name in judged}, judged)
    assert_same({name: saved.model[name] for name in raw}, raw)
    assert not torch.equal(judged["wte.weight"], raw["wte.weight"])
    last = [x for x in read_metrics(run) if "val/loss" in x][-1]
    names = {k for k in last if k.startswith("hellaswag/")} - {"hellaswag/questions"}
    found = {f"hellaswag/{key}" for key in ("acc_norm", "low", "high")}
    assert names == found | {f"{key}_raw" for key in found}
    assert read_summary(run)["final_hellaswag_acc_norm_raw"] == last["hellaswag/acc_norm_raw"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--eval.hellaswag", "/no/such.jsonl"], ["'/no/such.jsonl' cannot be read", "or hub"]),
        (["--eval.hellaswag", __file__], [f"{__file__}:1 is no question of HellaSwag"]),
        ([*ASK, "--model.vocab_size", "256"], ["needs GPT-2's vocabulary", "has 256"]),
        ([*ASK, "--model.block_size", "16"], ["more than block_size 16"]),
    ],
)
def test_a_mistake_is_one_line_before_anything_begins(shards, tmp_path, capsys, flags, words):
    refused(arguments(shards, tmp_path / "runs", *flags), capsys, *words)
    assert not (tmp_path / "runs").exists()


def test_other_questions_than_a_run_began_with_are_refused(shards, asked, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(ROWS[0]) + "\n")
    words = arguments(shards, asked.parent, "--eval.hellaswag", str(other))
    line = refused(words, capsys, "the questions in eval.hellaswag are not those that the run in")
    assert line.endswith("bring the old file back, or leave eval.hellaswag out")
    assert main(arguments(shards, asked.parent)) == 0  # asked no more, which changes nothing
    said = capsys.readouterr().out
    assert "has finished already" in said
    assert "python -m analysis" not in said


def test_a_finished_run_that_was_asked_nothing_says_how_to_ask_it(shards, plain, capsys):
    assert main(arguments(shards, plain.parent, *ASK)) == 0
    said = capsys.readouterr().out
    assert f"python -m analysis hellaswag {plain} --questions {QUESTIONS} asks them now" in said


def test_a_finished_run_and_a_folder_of_transformers_are_scored_afterwards(
    asked, shards, tmp_path, capsys
):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(4)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_positions=64, n_layer=1, n_head=2, n_embd=8)
    ).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.5)
    theirs.save_pretrained(tmp_path / "hf")
    expected = sum(oracle(lambda ids: theirs(ids).logits)[1]) / 12
    words = ["--questions", str(QUESTIONS), "--device", "cpu"]
    assert analysis(["hellaswag", f"{asked}@all", str(tmp_path / "hf"), *words]) == 0
    first, second = capsys.readouterr().out.splitlines()
    accuracy = read_summary(asked)["final_hellaswag_acc_norm"]
    assert first.startswith(f"{asked} at step 2: HellaSwag {accuracy:.4f} (95 % interval ")
    assert second.startswith(f"{tmp_path}/hf: HellaSwag {expected:.4f} (95 % interval ")
    assert main(arguments(shards, tmp_path / "runs", *ASK, "--init", f"hf:{tmp_path}/hf")) == 0
    begins = read_metrics(only_run(tmp_path / "runs"))[0]
    assert begins["hellaswag/acc_norm"] == pytest.approx(expected)


def test_a_mistake_afterwards_is_one_line(asked, capsys):
    assert analysis(["hellaswag", str(asked), "--questions", "/no/such.jsonl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: HellaSwag: '/no/such.jsonl' cannot be read")
