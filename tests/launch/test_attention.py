"""The order of attention's kernels, and which one is taken."""

import pytest
import torch
from torch.nn.attention import SDPBackend

from configs import Model
from launch.attention import kernels, preferred, taken

SHAPE = Model(vocab_size=97, block_size=32, n_layer=1, n_head=2, n_embd=32)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "first"),
    [
        ((8, 0), "FLASH"),
        ((8, 9), "FLASH"),
        ((9, 0), "CUDNN"),
        ((10, 0), "CUDNN"),
        ((12, 0), "FLASH"),
    ],
)
def test_cudnn_comes_first_where_it_is_faster_and_the_plain_kernel_last(capability, first):
    order = kernels(capability)
    assert order[0].name == f"{first}_ATTENTION"
    assert order[-1] is SDPBackend.MATH
    assert len(set(order)) == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("block_size", "kernel"), [(256, "math"), (512, "flash_attention")])
def test_the_kernel_that_is_taken_is_named_and_short_sequences_take_products(
    dtype, block_size, kernel
):
    shape = SHAPE.model_copy(update={"block_size": block_size})
    with preferred(CPU, block_size):
        assert taken(shape, dtype, CPU) == kernel
