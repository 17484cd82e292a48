"""docs/api.md does what it says: its code runs as written, in one go, on a real run."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from record.runlog import read_metrics
from tests.jobs import ROOT, command
from train_gpt2 import main

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def found(shards, tmp_path_factory):
    """Names that the code of the page has defined, and the run that it read."""
    runs = tmp_path_factory.mktemp("schedules")
    for seed in ("1", "2"):
        for name in ("cosine", "wsd"):
            assert main([*command(shards, runs), "--seed", seed, "--schedule.name", name]) == 0
    run = next(path for path in runs.iterdir() if "-cosine-s1-" in path.name)
    rows = (torch.arange(64)[:, None] + torch.arange(33)) % 8  # the next token can be learned
    names = {
        "tokens": rows[:2, :-1],
        "inputs": lambda step: rows[:, :-1],
        "targets": lambda step: rows[:, 1:],
    }
    for block in BLOCKS:
        block = block.replace("runs/adamw-cosine-s1-0a1b2c3d", str(run))
        exec(block.replace("runs/schedules", str(runs)).replace("steps = 100", "steps = 12"), names)
    return names, run


def test_the_page_reads_a_runs_numbers(found):
    names, run = found
    assert names["lines"] == read_metrics(run)
    assert names["losses"][-1] == (12, names["final"])


def test_the_page_loads_the_weights_that_were_evaluated(found, shards):
    """On the validation tokens the model has the loss that the run recorded."""
    names, run = found
    checkpoint = torch.load(next((run / "checkpoints").glob("step-00000012*")), weights_only=True)
    model = type(names["model"])(names["config"].model)
    model.load_state_dict(checkpoint["model"])
    tokens = np.fromfile(shards / "tiny_val_000000.bin", dtype="<u2", offset=1024)[:2049]
    rows = torch.from_numpy(tokens.astype(np.int64))
    with torch.no_grad():
        loss = model(rows[:-1].view(-1, 32), rows[1:].view(-1, 32))
        logits = model.logits(names["tokens"])
    assert loss.item() == pytest.approx(names["final"], abs=1e-5)
    assert logits.shape == names["logits"].shape == (2, 32, 256)


def test_the_loop_of_the_page_learns(found):
    names, _ = found
    first = names["GPT"].initialised(names["config"].model, 1)
    with torch.no_grad():
        before = first(names["inputs"](0), names["targets"](0))
    assert names["loss"].item() < before.item() - 0.3


def test_the_page_judges(found):
    names, _ = found
    assert {row.arm for row in names["judgement"].rows}
    assert names["judgement"].headline


@pytest.mark.slow
def test_an_install_works_from_another_folder_that_has_a_data_folder_of_its_own(tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin/python"
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    shared = next(path for path in sys.path if path.endswith("site-packages"))
    (Path(site) / "shared.pth").write_text(shared + "\n")  # torch and the others, no download
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--editable", ROOT]
    subprocess.run(install, check=True)
    (tmp_path / "mine/data").mkdir(parents=True)
    program = "import data.shards, optim; from train_gpt2 import GPT; print(optim.__file__)"
    out = subprocess.check_output([python, "-c", program], cwd=tmp_path / "mine", text=True)
    assert out.strip() == str(ROOT / "optim/__init__.py")
