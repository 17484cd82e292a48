"""Parameters and memory by counting, against what torch keeps."""

import functools
import subprocess
import sys

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from configs import Batch, Model, load
from configs.loading import PRESETS
from configs.size import GIB, fitting, memory, planned
from tests.jobs import ROOT
from train_gpt2 import GPT

BATCH = 3  # 192 tokens: no side of a parameter


def shape(layers, vocab_size=1024):
    return Model(vocab_size=vocab_size, block_size=64, n_layer=layers, n_head=4, n_embd=128)


def kept_by_torch(model, tokens):
    """Bytes of the tensors kept for the backward pass, without parameters and casts of them."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    matrices = {p.shape for p in model.parameters() if p.ndim == 2}
    matrices |= {torch.Size(reversed(sizes)) for sizes in matrices}
    kept = {}

    def pack(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in own and not (
            t.dtype == torch.bfloat16 and t.shape in matrices
        ):
            kept[storage.data_ptr()] = storage  # alive, so that no other takes its place
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(tokens, tokens)
    return sum(storage.nbytes() for storage in kept.values())


class Alive(TorchDispatchMode):
    """Counts the bytes of all tensors made within it that are still there; none of the model's."""

    def __init__(self, model):
        super().__init__()
        self.own = {p.untyped_storage()._cdata for p in model.parameters()}
        self.made = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.own:
                    self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result

    def bytes(self):
        return sum(size for storage, size in self.made.values() if not storage.expired())


def kept_by_compiler(model, tokens):
    """Bytes that the compiled forward pass hands to the backward pass, by tracing both."""
    kept = {}

    def forward(graph, inputs):
        (outputs,) = graph.graph.find_nodes(op="output")[0].args
        for node in outputs:
            value = node.meta.get("val") if node is not None else None
            parameter = value is not None and value.shape[:1] != tokens.shape[:1]
            rows = value is not None and value.shape[:1] == (tokens.numel(),)
            if node.op != "placeholder" and (rows or not parameter):
                storage = value.untyped_storage()
                kept[storage._cdata] = storage.nbytes()
        return graph

    backend = aot_autograd(
        fw_compiler=forward,
        bw_compiler=lambda graph, inputs: graph,
        partition_fn=functools.partial(min_cut_rematerialization_partition, compiler="inductor"),
        decompositions=select_decomp_table(),
    )
    torch.compile(model, backend=backend, dynamic=False)(tokens, tokens)
    torch._dynamo.reset()
    return sum(kept.values())


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_block_keeps_what_is_counted(bfloat16, compiled):
    """Of models with one and two layers, the difference; the compiler keeps a few bytes fewer."""
    tokens, measured = torch.zeros(BATCH, 64, dtype=torch.int64), []
    count = kept_by_compiler if compiled else kept_by_torch
    for layers in (1, 2):
        model = GPT.initialised(shape(layers), 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            measured.append(count(model, tokens))
    one, two = (
        memory(shape(n), BATCH, 8, bfloat16=bfloat16, compiled=compiled).activations for n in (1, 2)
    )
    assert measured[1] - measured[0] == pytest.approx(two - one, rel=0.01)


def test_plain_attention_keeps_its_weights():
    tokens, measured = torch.zeros(BATCH, 64, dtype=torch.int64), []
    with sdpa_kernel(SDPBackend.MATH):
        for layers in (1, 2):
            measured.append(kept_by_torch(GPT.initialised(shape(layers), 1), tokens))
    how = {"bfloat16": False, "compiled": False, "plain_attention": True}
    one, two = (memory(shape(n), BATCH, 8, **how).activations for n in (1, 2))
    assert measured[1] - measured[0] == two - one


PEAK = """
import re, sys, torch
from train_gpt2 import GPT
from configs import Model
shape = Model(vocab_size=2048, block_size=64, n_layer=4, n_head=4, n_embd=128)
model = GPT.initialised(shape, 1)
model.recomputes = sys.argv[3] == "True"
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
def step(batch):
    tokens = torch.zeros(batch, 64, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16, enabled=sys.argv[1] == "bfloat16"):
        loss = model(tokens, tokens)
    loss.backward()
    optimizer.step()
step(1)
def memory(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = memory("VmRSS")
step(int(sys.argv[2]))
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("dtype", "recomputes"),
    [
        ("float32", False),
        pytest.param("bfloat16", False, marks=pytest.mark.slow),
        pytest.param("float32", True, marks=pytest.mark.slow),
    ],
)
def test_the_peak_of_a_real_step_is_what_is_counted(dtype, recomputes):
    """Measured by the operating system, over a step with one sequence."""
    words = [sys.executable, "-c", PEAK, dtype, str(batch := 256), str(recomputes)]
    output = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    many, one = (
        memory(
            shape(4, 2048),
            b,
            8,
            bfloat16=dtype == "bfloat16",
            compiled=False,
            checkpointing=recomputes,
        ).total
        for b in (batch, 1)
    )
    assert int(output) == pytest.approx(many - one, rel=0.12)


@pytest.mark.parametrize("size", ["gpt2_124m", "gpt2_350m", "gpt2_774m", "gpt2_1558m"])
def test_presets_have_the_largest_micro_batches_that_fit_80_gb_on_8_gpus(size):
    """An H100 of 80 GB has 79.1 GiB, of which CUDA and kernels take about two."""
    files = [PRESETS / "gpt2_124m.toml", PRESETS / "model" / f"{size}.toml"]
    config = load([str(file) for file in files if file.is_file()])
    batch = Batch.divide(config, 8)
    found = fitting(batch, 77 * GIB, lambda rows: planned(config, rows, 8, gpu=True).total)
    assert found.micro == batch.micro == config.train.micro_batch_size


def test_no_micro_batch_fits_where_the_model_alone_does_not():
    config = load([])
    needs = planned(config, 1, 8, gpu=True).total
    batch = Batch.divide(config, 8)
    assert fitting(batch, needs, lambda rows: planned(config, rows, 8, gpu=True).total) is None


def test_recomputed_blocks_keep_only_their_inputs():
    """Of models with one and two blocks, what is alive after the forward pass: the difference."""
    tokens, alive = torch.zeros(BATCH, 64, dtype=torch.int64), []
    for layers in (1, 2):
        model = GPT.initialised(shape(layers), 1)
        model.recomputes = True
        with Alive(model) as counter:
            loss = model(tokens, tokens)
        alive.append(counter.bytes())
        loss.backward()  # possible: nothing that it needs was given up
    one, two = (
        memory(shape(n), BATCH, 8, bfloat16=False, compiled=False, checkpointing=True).activations
        for n in (1, 2)
    )
    assert alive[1] - alive[0] == two - one
