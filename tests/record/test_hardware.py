"""Peak FLOP/s by device name, and what is recorded about a machine."""

import json
import os
import subprocess

import pytest
import torch

from record import hardware
from record.hardware import environment, git_state, peak_flops


@pytest.mark.parametrize(
    ("name", "dtype", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA A100-PCIE-40GB", "float32", 156),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA H100 NVL", "bfloat16", 835.5),
        ("NVIDIA GH200 480GB", "bfloat16", 989.4),
        ("NVIDIA H200", "bfloat16", 989.4),
        ("NVIDIA H200", "float32", 494.7),
        ("NVIDIA B200", "bfloat16", 2250),
        ("NVIDIA L40S", "bfloat16", 362.05),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA A10G", "bfloat16", 70),
        ("Tesla V100-SXM2-16GB", "float16", 125),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("Tesla T4", "float32", 8.1),
        ("Tesla V100-SXM2-16GB", "float32", 15.7),
        ("NVIDIA GeForce RTX 3090", "bfloat16", 71),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA GeForce RTX 4080", "bfloat16", 97.5),
        ("NVIDIA GeForce RTX 5090", "float32", 104.8),
        ("NVIDIA RTX A6000", "bfloat16", 154.8),
        # what is not known has no peak, rather than a neighbour's
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16", None),
        ("NVIDIA H300", "bfloat16", None),
        ("cpu", "float32", None),
        ("", "float32", None),
    ],
)
def test_peak_is_the_dense_figure_of_the_datasheet(name, dtype, tera):
    expected = None if tera is None else pytest.approx(tera * 1e12)
    assert peak_flops(name, dtype) == expected


def test_unknown_dtype_is_named_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"'fp8'.*bfloat16, float16, float32"):
        peak_flops("NVIDIA H100 PCIe", "fp8")


def test_environment_is_plain_json_and_says_what_ran_where(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["torch"] == str(torch.__version__), "with its build"
    assert facts["device"]
    assert facts["cpu"]
    assert facts["torchrun"]["WORLD_SIZE"] == "8"


def test_git_state_names_the_commit_and_whether_files_differ(tmp_path, monkeypatch):
    assert git_state(tmp_path) is None
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.org", "-c", "commit.gpgsign=false"]

    def git(*words):
        command = ["git", "-C", tmp_path, *identity, *words]
        return subprocess.check_output(command, text=True).strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path)["dirty"] is True


def test_code_hash_changes_with_the_code_that_trains_and_with_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "ROOT", tmp_path)
    for name in ("train_gpt2.py", "optim/core/base.py", "report/page.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    first = hardware.code_hash()
    assert set(hardware.code_files()) == {"train_gpt2.py", "optim/core/base.py"}
    for name, changes in {"report/page.py": False, "README.md": False, "optim/x.py": True}.items():
        (tmp_path / name).write_text("2")
        assert (hardware.code_hash() != first) is changes
    (tmp_path / "optim/x.py").unlink()
    (tmp_path / "optim/core/base.py").write_text("2")
    assert hardware.code_hash() != first


def test_memory_left_is_that_of_the_tightest_group_and_files_do_not_count(tmp_path):
    """Limits of control groups, in the form of the kernel's files (version 2)."""
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    for group, most, used in ((tmp_path / "job", "1000", "700"), (inner, "max", "600")):
        (group / "memory.max").write_text(most + "\n")
        (group / "memory.current").write_text(used + "\n")
        (group / "memory.stat").write_text("anon 1\ninactive_file 40\nactive_file 50\n")
    left = hardware._left_in_groups("/job/step", str(tmp_path), "memory.max", "memory.current")
    assert left == [1000 - 700 + 90]
    assert 0 < hardware.available_memory() < 2**50
