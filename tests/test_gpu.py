"""What only a GPU can show: `make test-gpu`. Elsewhere these tests skip."""

from __future__ import annotations

import math
import os
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from configs import Model
from launch import attention
from optim import build_optimizer
from record import hardware
from record.runlog import RunLog, read_metrics, read_record
from tests.jobs import assert_same, only_run, result
from tests.test_resume import interrupted
from train_gpt2 import main

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for equal bits; before CUDA starts
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]
CUDA = torch.device("cuda")
PLAIN = ["--train.compile", "false", "--train.dtype", "float32"]
ROWS = ["adam_mini", "adopt", "lamb", "lion", "muon", "prodigy", "sgd_sai", "soap", "sophia_g"]


def train(tiny, runs, *flags):
    """metrics.jsonl and record.json of a run in this process."""
    assert main([*tiny, "--log.dir", str(runs), "--train.device", "cuda", *flags]) == 0
    return read_metrics(only_run(runs)), read_record(only_run(runs))


def losses(metrics):
    return [x[key] for x in metrics for key in ("train/loss", "val/loss") if key in x]


def needs_bfloat16():
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16")


def test_float32_trains_as_on_a_cpu(tiny, tmp_path):
    """Products in TF32 are rounded to 11 bits, so the losses agree to three digits."""
    short = ["--train.total_steps", "3"]
    metrics, record = train(tiny, tmp_path / "gpu", *PLAIN, *short)
    assert main([*tiny, "--log.dir", str(tmp_path / "cpu"), *short]) == 0
    expected = losses(read_metrics(only_run(tmp_path / "cpu")))
    assert losses(metrics) == pytest.approx(expected, abs=5e-3)
    assert record["launches"][-1]["environment"]["device"] == torch.cuda.get_device_name()
    known = hardware.peak_flops(torch.cuda.get_device_name(), "float32")
    assert all((x["mfu"] is None) == (known is None) for x in metrics if "mfu" in x)


def test_an_interrupted_run_goes_on_to_the_same_bits(tiny, tmp_path):
    """With kernels that add in a fixed order; without, up to their own order of addition."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        train(tiny, tmp_path / "calm", *PLAIN)
        words = ["--log.dir", str(tmp_path / "runs"), "--train.device", "cuda", *PLAIN]
        assert interrupted([*tiny, *words], at=6) == 0
        train(tiny, tmp_path / "runs", *PLAIN)
    finally:
        torch.use_deterministic_algorithms(before)
    assert_same(result(tmp_path / "calm"), result(tmp_path / "runs"))


def test_compiled_in_bfloat16_it_trains_as_in_float32_and_compiles_before_the_clock(tiny, tmp_path):
    needs_bfloat16()
    plain, _ = train(tiny, tmp_path / "plain", *PLAIN)
    graphs = []
    log = RunLog.log

    def count(self, step, values, *more):
        log(self, step, values, *more)
        if "train/loss" in values:
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "log", count)
        metrics, record = train(tiny, tmp_path / "compiled", "--train.compile", "true")
    assert losses(metrics) == pytest.approx(losses(plain), abs=0.05)
    assert record["launches"][-1]["environment"]["dtype"] == "bfloat16"
    assert len(set(graphs)) == 1, "compiled again inside the loop"


@pytest.mark.parametrize("name", ROWS)
def test_the_compiled_update_of_an_optimizer_is_the_plain_one(name):
    found = []
    for compiled in (True, False):
        generator = torch.Generator().manual_seed(3)
        shapes = {"wte.weight": (300, 128), "h.0.mlp.c_fc.weight": (512, 128), "bias": (128,)}
        named = {
            key: torch.nn.Parameter(0.1 * torch.randn(shape, generator=generator).to(CUDA))
            for key, shape in shapes.items()
        }
        roles = {"embedding": "wte.weight", "hidden": "h.0.mlp.c_fc.weight", "vector": "bias"}
        groups = [{"params": [named[k]], "names": [k], "role": r} for r, k in roles.items()]
        extra = {"n_head": 4} if name == "adam_mini" else {}
        extra |= {"matmul_dtype": "float32"} if name in ("muon", "soap") else {}
        optimizer = build_optimizer(name, groups, total_steps=100, **extra)
        optimizer.compile = compiled
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # the notice that nothing is compiled
            optimizer.warm_up()
            for step in range(4):
                for p in named.values():
                    p.grad = torch.randn(p.shape, generator=generator).to(CUDA)
                if optimizer.curvature_due(step):
                    optimizer.update_curvature(64)
                optimizer.step()
        found.append(named)
    for key, p in found[0].items():
        torch.testing.assert_close(p, found[1][key], rtol=1e-4, atol=1e-5)


def test_the_peak_of_memory_leaves_out_what_was_needed_before_training():
    warm_up = torch.empty(2**28, dtype=torch.uint8, device=CUDA)
    del warm_up
    assert hardware.peak_memory_gib(CUDA) >= 0.25
    hardware.reset_peak_memory(CUDA)
    assert hardware.peak_memory_gib(CUDA) < 0.25
    held = torch.empty(2**29, dtype=torch.uint8, device=CUDA)
    assert hardware.peak_memory_gib(CUDA) >= 0.5
    del held


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_attention_kernel_that_is_recorded_is_the_one_that_runs(dtype):
    if dtype == "bfloat16":
        needs_bfloat16()
    shape = Model(vocab_size=64, block_size=256, n_layer=1, n_head=4, n_embd=256)
    q = torch.randn(2, 4, 256, 64, device=CUDA, dtype=getattr(torch, dtype), requires_grad=True)
    with attention.preferred(CUDA, 1024):
        recorded = attention.taken(shape, dtype, CUDA)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            y = F.scaled_dot_product_attention(q, q, q, is_causal=True)
            y.sum().backward()
    kernel = "attention_math" if recorded == "math" else recorded
    operation = f"aten::_scaled_dot_product_{kernel}"
    assert operation in {event.key for event in seen.key_averages()}, recorded
    assert math.isfinite(q.grad.norm().item())
    if dtype == "bfloat16":
        assert recorded != "math"
