"""Products of float32 on a CPU: by the fastest library, and without more rounding."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from optim.core import products

CPU = "cpu"


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_float32_matmul_precision()
    products._of_this_processor.cache_clear()
    yield
    products._of_this_processor.cache_clear()
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("shape", [(64, 64, 64), (512, 128, 384), (384, 512, 128)])
def test_products_round_as_float32_does(shape):
    torch.set_float32_matmul_precision(products.matmul_precision(CPU, tf32=True))
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(s, generator=generator) for s in ((m, k), (k, n)))
    for x, y in ((a, b), (a, b.t().contiguous().t()), (a.t().contiguous().t(), b)):
        error = ((x @ y).double() - x.double() @ y.double()).abs().max()
        assert error < 2e-5 * k**0.5  # bfloat16: above 1e-2


def test_the_setting_is_asked_for_and_not_made():
    torch.set_float32_matmul_precision("highest")
    products.matmul_precision(CPU, tf32=True)
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_processor_that_would_round_to_bfloat16_is_not_asked_to(monkeypatch):
    monkeypatch.setattr(products, "_onednn_may_be_asked", lambda: True)
    monkeypatch.setattr(products, "_keeps_float32", lambda: False)
    assert products.matmul_precision(CPU, tf32=True) == "highest"


def test_numbers_that_bfloat16_cannot_hold_show_whether_products_round(monkeypatch):
    assert products._keeps_float32()  # with the setting that torch begins with
    rounded = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b: rounded(a.bfloat16(), b.bfloat16()).float(),
    )
    assert not products._keeps_float32()


def test_tensors_without_data_do_not_get_into_the_question():
    with FakeTensorMode():
        assert products.matmul_precision(CPU, tf32=True) in ("medium", "highest")


def test_only_gpus_that_may_round_do():
    assert products.matmul_precision("cuda", tf32=True) == "high"
    assert products.matmul_precision("cuda", tf32=False) == "highest"
    assert products.matmul_precision("meta", tf32=True) == "highest"
