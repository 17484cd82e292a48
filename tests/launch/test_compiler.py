"""What torch.compile needs is looked for before anything else is done."""

import sysconfig

import pytest

from configs import ConfigError, load
from launch import compiler
from launch.compiler import refuse_without
from launch.process import Process
from train_gpt2 import main


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without any compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_compiler_a_run_that_compiles_ends_in_one_line(bare, tiny, tmp_path, capsys):
    assert main([*tiny, "--train.compile", "true"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: train.compile = true compiles on this cpu device, which takes a compiler, and there"
        " is no g++; install it, or give --train.compile false\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("device", "setting"), [("cpu", "auto"), ("cpu", False), ("cuda", False)])
def test_what_does_not_compile_needs_no_compiler(bare, device, setting):
    refuse_without(device, setting)


def test_a_gpu_needs_triton_a_c_compiler_and_pythons_headers(bare, monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^train.compile = auto .* takes the package triton;"):
        refuse_without("cuda", "auto")
    monkeypatch.setattr(compiler, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match="there is no gcc or clang; install it, or give --train"):
        refuse_without("cuda", "auto")
    (tmp_path / "my-cc").touch(mode=0o755)
    monkeypatch.setenv("CC", "my-cc")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no .*/Python.h .package python3-dev.;"):
        refuse_without("cuda", "auto")
    (tmp_path / "Python.h").touch()
    refuse_without("cuda", "auto")


def test_a_process_without_a_gpu_is_told_so_rather_than_what_compiling_for_one_takes(
    bare, monkeypatch
):
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    monkeypatch.setenv("LOCAL_RANK", "99")
    train = load(["configs/quickstart.toml", "--train.device", "cuda"]).train
    with pytest.raises(ConfigError, match="process 100 on this node has no GPU of its own"):
        Process.from_environment(train)
