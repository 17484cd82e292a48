"""What a real bash offers when Tab is pressed."""

import os
import pty
import select
import shlex
import subprocess
import sys
import time

import pytest

from configs.completion import script
from optim import OPTIMIZERS, SCHEDULES
from tests.jobs import ROOT

TRAIN = "torchrun --nproc_per_node=2 train_gpt2.py configs/quickstart.toml "


def offered(line):
    """Words that the function gives for the cursor at the end of `line`."""
    words = [*line.split(" ")]
    setting = " ".join(map(shlex.quote, words))
    program = f"{script()}\nCOMP_WORDS=({setting}) COMP_CWORD={len(words) - 1}\n"
    program += f"COMP_LINE={shlex.quote(line)}\n_gpt2_bench\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    out = subprocess.run(
        ["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stderr == ""
    return out.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (TRAIN + "--optimizer.name ", set(OPTIMIZERS)),
        (TRAIN + "--schedule.name ", set(SCHEDULES)),
        (TRAIN + "--optimizer.name lio", {"lion"}),
        (TRAIN + "--train.total", {"--train.total_steps"}),
        (TRAIN + "--optimizer.wei", {"--optimizer.weight_decay", "--optimizer.weight_lr_power"}),
        ("python train_gpt2.py --train.device ", {"auto", "cpu", "cuda"}),
        ("python -m launch --log.wandb o", {"online", "offline"}),
        ("python -m ", {"launch", "contest", "report", "data", "optim"}),
        ("python -m optim show sophia", {"sophia_g"}),
        (f"{sys.executable} -m report --base", {"--baseline"}),
        # nothing of ours: bash goes on to files
        (TRAIN + "--data.dir ", set()),
        (TRAIN + "conf", set()),
        ("python other.py --opt", set()),
        ("python -m pytest --opt", set()),
    ],
)
def test_words_after_our_commands_and_only_there(line, words):
    assert set(offered(line)) == words


def test_tab_in_a_terminal(tmp_path):
    """The rest of the only candidate appears; files are completed as before."""
    (tmp_path / "notes-of-mine.txt").touch()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    (tmp_path / "script").write_text(script())
    os.write(terminal, b"source ./script\n")
    os.write(terminal, b"python train_gpt2.py --optimizer.na\t lio\t && python notes-\t\n")
    text, end = "", time.monotonic() + 30
    while "notes-of-mine.txt" not in text and time.monotonic() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    os.close(terminal)
    os.waitpid(pid, 0)
    assert "--optimizer.name lion" in text.replace("  ", " ")
    assert "python notes-of-mine.txt" in text
