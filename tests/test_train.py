"""One run from a command line to its record."""

import json
import math
import os
import pty
import subprocess
import sys
import termios
import tomllib

import pytest
import torch

import optim
from configs import load
from configs.loading import PRESETS
from optim import resolve
from record.runlog import read_metrics, read_record, read_summary
from tests.jobs import ROOT, command, finish, job, only_run
from train_gpt2 import main


def run(arguments, runs):
    assert main(arguments) == 0
    directory = only_run(runs)
    return directory, read_metrics(directory)


def test_a_run_logs_every_named_quantity_at_every_step(tiny, tmp_path):
    _, lines = run(tiny, tmp_path / "runs")
    updates = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in updates] == list(range(12))
    assert [line["step"] for line in lines if "val/loss" in line] == [0, 5, 10, 12]
    for line in updates:
        assert set(line) == {
            "step", "train/loss", "train/grad_norm", "train/lr", "train/stability_score",
            "train/spike_score", "time/train_seconds", "time/step_ms", "time/optimizer_ms",
            "time/data_wait_ms", "tokens", "tokens_per_second", "mfu", "memory/peak_gib",
        }  # fmt: skip
        assert line["mfu"] is None  # the peak of a CPU is not guessed
        assert line["tokens"] == (line["step"] + 1) * 512
        assert line["tokens_per_second"] == pytest.approx(512e3 / line["time/step_ms"])
        assert line["time/optimizer_ms"] < line["time/step_ms"]
    seconds = [line["time/train_seconds"] for line in updates]
    steps = [line["time/step_ms"] for line in updates]
    assert seconds[-1] == pytest.approx(sum(steps) / 1e3)


def test_stability_score_is_the_2024_studys(tiny, tmp_path):
    _, lines = run(tiny, tmp_path / "runs")
    losses = torch.tensor([x["train/loss"] for x in lines if "train/loss" in x]).double()
    scores = [x["train/stability_score"] for x in lines if "train/loss" in x]
    expected = [1 / (1 + losses[: t + 1].std(correction=0).item()) for t in range(12)]
    assert scores == pytest.approx(expected)


def test_the_record_tells_everything_needed_to_repeat_the_run(tiny, tmp_path):
    directory, _ = run([*tiny, "--schedule.name", "wsd"], tmp_path / "runs")
    again = load([str(directory / "config.toml")])
    assert again.run_name == directory.name  # the written configuration is the same run
    table = tomllib.loads((directory / "config.toml").read_text())
    assert table["optimizer"]["eps"] == 1e-8  # defaults are written out
    record = read_record(directory)
    assert len(record["hashes"]["weights"]) == len(record["hashes"]["batches"]) == 64
    environment = record["launches"][0]["environment"]
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["world_size"] == 1
    assert {"git", "python", "host"} <= set(environment)
    summary = read_summary(directory)
    assert summary["status"] == "finished"
    assert summary["parameters"] == 256 * 32 + 32 * 32 + 2 * 12_704 + 64
    assert summary["optimizer_state_bytes_per_parameter"] == pytest.approx(8, abs=0.1)
    assert 0 < summary["last_lr_factor"] < summary["mean_lr_factor"] < 1
    json.loads((directory / "summary.json").read_text())


def test_logged_rates_are_the_schedules_and_every_role_follows(tiny, tmp_path):
    _, lines = run([*tiny, "--schedule.name", "linear", "--schedule.warmup_steps", "3"],
                   tmp_path / "runs")  # fmt: skip
    rates = [x["train/lr"] for x in lines if "train/loss" in x]
    factor = optim.build_schedule("linear", 12, warmup_steps=3)
    assert rates == [3e-3 * factor(t) for t in range(12)]


@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
def test_every_optimizer_trains_by_name(tiny, tmp_path, name):
    directory, lines = run([*tiny, "--optimizer.name", name, "--train.total_steps", "4"],
                           tmp_path / "runs")  # fmt: skip
    assert directory.name.startswith(f"{name}-cosine-s1-")
    assert read_summary(directory)["status"] == "finished"
    assert lines[0]["val/loss"] != lines[-1]["val/loss"]


@pytest.mark.parametrize(
    "path", sorted((PRESETS / "schedule").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_schedule_preset_trains(tiny, tmp_path, path):
    arguments = [tiny[0], str(path), *tiny[1:], "--train.total_steps", "8"]
    directory, lines = run([*arguments, "--eval.every", "8"], tmp_path / "runs")
    name = tomllib.loads(path.read_text())["schedule"]["name"]
    assert f"-{name}-s1-" in directory.name
    assert all(math.isfinite(x["train/loss"]) for x in lines if "train/loss" in x)


@pytest.mark.parametrize(
    "path", sorted((PRESETS / "optimizer").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_optimizer_preset_is_a_valid_overlay_of_gpt2(path):
    config = resolve(load([str(PRESETS / "gpt2_124m.toml"), str(path)]))
    assert config.optimizer.name == tomllib.loads(path.read_text())["optimizer"]["name"]


def test_a_role_has_a_rate_and_a_schedule_of_its_own(tiny, tmp_path):
    """Linear for hidden matrices; twice the rate, on the run's cosine, for the embeddings."""
    flags = (
        "--optimizer.lr 1e-3 --optimizer.roles.embedding.lr_ratio 2 --schedule.roles.hidden.name"
    )
    linear = "linear_to_zero --schedule.roles.hidden.warmup_steps 0 --schedule.warmup_steps 0"
    words = [*flags.split(), *linear.split(), "--schedule.min_lr_ratio", "0"]
    directory, lines = run([*tiny, *words], tmp_path / "runs")
    updates = [line for line in lines if "train/loss" in line]
    for t, line in enumerate(updates):
        cosine = 1e-3 * (1 + math.cos(math.pi * t / 12)) / 2
        assert line["train/lr"] == pytest.approx(1e-3 * (1 - t / 12))
        assert line["optimizer/lr_embedding"] == pytest.approx(2 * cosine)
        assert line["optimizer/lr_vector"] == pytest.approx(cosine)
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["mean_lr_factor"] == pytest.approx(sum(range(1, 13)) / 144)


def test_an_optimizer_from_anywhere_trains_by_dotted_path(tiny, tmp_path):
    arguments = [*tiny, "--optimizer.name", "torch.optim.Adamax", "--optimizer.lr", "2e-3"]
    directory, lines = run(arguments, tmp_path / "runs")
    assert directory.name.startswith("adamax-cosine-s1-")
    assert lines[-1]["val/loss"] < lines[0]["val/loss"]


OWN = """
import torch

class Own(torch.optim.SGD):
    def __init__(self, params, lr=0.5):
        super().__init__(params, lr)

def ramp(step, total_steps, *, end: float = 0.25):
    return 1 - (1 - end) * step / total_steps
"""


@pytest.mark.parametrize("text", ["seed = 1", "optimizer = 3", "[optimizer]\nname = 1", "="])
def test_a_damaged_folder_beside_a_run_does_not_keep_it_from_starting(
    tiny, tmp_path, monkeypatch, text
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_lab.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "own_lab", raising=False)
    damaged = tmp_path / "runs/own-cosine-s1-00000000"
    damaged.mkdir(parents=True)
    (damaged / "config.toml").write_text(text)
    assert main([*tiny, "--optimizer.name", "own_lab.Own"]) == 0
    del sys.modules["own_lab"]


def test_an_edited_optimizer_or_schedule_of_ones_own_is_a_new_run(
    tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(tmp_path)
    arguments = [*tiny, "--optimizer.name", "own_lab.Own", "--schedule.name", "own_lab.ramp"]
    folders, said = [], []
    for text in (OWN, OWN, OWN.replace("lr=0.5", "lr=0.25")):
        (tmp_path / "own_lab.py").write_text(text)
        sys.modules.pop("own_lab", None)
        assert main([*arguments, "--schedule.end", "0.5"]) == 0
        folders.append({path.name for path in (tmp_path / "runs").iterdir()})
        said.append(capsys.readouterr().out)
    assert folders[0] == folders[1]
    assert "has finished already" in said[1]
    (first,), (second,) = folders[0], folders[2] - folders[0]
    assert first.startswith("own-ramp-s1-")
    assert said[2].startswith(
        f"{tmp_path}/runs/{first} was made by another version of own_lab.Own and own_lab.ramp;"
        f" this is a new run\nrun       {tmp_path}/runs/{second}\n"
    )
    assert "was made by" not in said[0]
    rates = [x["train/lr"] for x in read_metrics(tmp_path / "runs" / first) if "train/lr" in x]
    assert rates == pytest.approx([0.5 * (1 - 0.5 * step / 12) for step in range(12)])
    # The written configuration is that run, and refuses to be another one.
    sys.modules.pop("own_lab")
    config = str(tmp_path / "runs" / first / "config.toml")
    assert main([config]) == 2
    assert "version" in capsys.readouterr().err
    (tmp_path / "own_lab.py").write_text(OWN)
    sys.modules.pop("own_lab", None)
    assert main([config]) == 0
    assert "has finished already" in capsys.readouterr().out
    sys.modules.pop("own_lab")


def test_schedule_free_is_evaluated_at_its_averaged_point(tiny, tmp_path, monkeypatch):
    """The same training, but another validation loss, than where the hooks do nothing."""
    flags = ["--optimizer.name", "schedule_free_adamw", "--schedule.name", "constant"]
    results = []
    for hooks in (True, False):
        if not hooks:
            monkeypatch.setattr(
                optim.OPTIMIZERS["schedule_free_adamw"], "eval_mode", lambda _: None
            )
            monkeypatch.setattr(
                optim.OPTIMIZERS["schedule_free_adamw"], "train_mode", lambda _: None
            )
        runs = tmp_path / str(hooks)
        results.append(run([*tiny, *flags, "--log.dir", str(runs)], runs)[1])
    train, val = (
        [[x[f"{part}/loss"] for x in lines if f"{part}/loss" in x] for lines in results]
        for part in ("train", "val")
    )
    assert train[0] == train[1]
    assert val[0][0] == val[1][0]  # before the first update both points are the same
    assert all(a != b for a, b in zip(val[0][1:], val[1][1:], strict=True))


def test_coinflip_reaches_the_entropy(tmp_path):
    data = tmp_path / "flips"
    subprocess.run([sys.executable, "-m", "data", "coinflip", "--out", data], cwd=ROOT, check=True)
    config = str(PRESETS / "coinflip.toml")
    arguments = [config, "--data.dir", str(data), "--log.dir", str(tmp_path / "runs")]
    arguments += ["--train.total_steps", "60", "--eval.every", "60", "--eval.tokens", "131072"]
    directory, _ = run([*arguments, "--log.wandb", "disabled"], tmp_path / "runs")
    entropy = -(0.666 * math.log(0.666) + 0.334 * math.log(0.334))
    assert entropy == pytest.approx(0.6365, abs=5e-4)
    assert read_summary(directory)["final_val_loss"] == pytest.approx(entropy, abs=0.01)


def test_lr_zero_leaves_the_initial_weights(tiny, tmp_path):
    _, lines = run([*tiny, "--optimizer.lr", "0.0"], tmp_path / "runs")
    assert len({x["val/loss"] for x in lines if "val/loss" in x}) == 1


def test_gradients_are_clipped_and_the_logged_norm_is_that_before(tiny, tmp_path):
    """SGD's first update has the length of lr x clip where the gradient is longer."""
    base = [
        *tiny,
        "--optimizer.name",
        "sgd",
        "--optimizer.lr",
        "1.0",
        "--schedule.name",
        "constant",
    ]
    losses = {}
    for clip in ("0.001", "0"):
        runs = tmp_path / clip
        _, lines = run([*base, "--train.grad_clip", clip, "--log.dir", str(runs)], runs)
        first = next(x for x in lines if "train/loss" in x)
        assert first["train/grad_norm"] > 0.1
        losses[clip] = abs(lines[-1]["val/loss"] - lines[0]["val/loss"])
    assert losses["0.001"] < 0.1 < losses["0"]


def test_help_and_print_config_need_no_data(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "--train.batch_tokens" in text
    assert "524288" in text
    assert main(["--print-config", "--optimizer.lr", "1e-3"]) == 0
    table = tomllib.loads(capsys.readouterr().out)
    assert table["optimizer"]["lr"] == 1e-3
    assert table["optimizer"]["eps"] == 1e-8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--schedule.warmup_steps", "99999"], "schedule.warmup_steps = 99999 is longer than the"),
        (["--optimizer.name", "schedule_free_sgd", "--optimizer.wrap.ema.decay", "0.9"],
         "optimizer.wrap.ema: ScheduleFreeSGD averages its weights itself"),
        (["--optimizer.name", "muon", "--optimizer.orthogonalisation", "turbo",
          "--optimizer.ns_steps", "9"], "optimizer.ns_steps = 9: 'turbo' has 5 polynomials"),
        (["--train.batch_tokens", "1024"], "train.batch_tokens = 1024 is not divisible by 3 ranks"),
    ],
)  # fmt: skip
def test_a_configuration_that_a_launch_would_refuse_is_not_printed(
    monkeypatch, capsys, words, said
):
    monkeypatch.setenv("WORLD_SIZE", "3")
    whole = ["--train.batch_tokens", str(3 * 64 * 1024), *words]
    assert main(["--print-config", *whole]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def test_a_terminal_gets_a_progress_bar_and_a_pipe_plain_lines(tiny, tmp_path):
    plain = finish(job(tiny))
    assert "step 12/12  val loss" in plain
    assert "\r" not in plain
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 120))
    other = [*tiny, "--seed", "2"]
    process = subprocess.Popen([sys.executable, "train_gpt2.py", *other], cwd=ROOT,
                               stdout=follower, stderr=follower)  # fmt: skip
    os.close(follower)
    seen = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # the other end has closed
            break
        seen += chunk
    assert process.wait() == 0
    assert b"12/12" in seen
    assert b"\r" in seen
    assert b"finished" in seen


def test_no_option_is_a_prefix_of_torchruns_own():
    """torchrun's parser completes prefixes, also of words that are meant for the script."""
    from torch.distributed.run import get_args_parser

    from configs.loading import keys

    theirs = get_args_parser()._option_string_actions
    for key in [key for key, _, _ in keys()] + ["optimizer.lr", "help", "print-config"]:
        clash = [option for option in theirs if option.startswith(f"--{key}")]
        assert not clash or key == "help", f"--{key} could be torchrun's {clash}"


def test_options_reach_the_trainer_through_torchrun(shards, tmp_path):
    output = finish(job([*command(shards, tmp_path / "runs"), "--train.total_steps=3"], nproc=1))
    assert "step 3/3" in output
