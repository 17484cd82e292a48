"""Products of float32 on a CPU: by the fastest library, and without more rounding."""

import pytest
import torch

from launch import products

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("shape", [(64, 64, 64), (512, 128, 384), (384, 512, 128)])
def test_products_round_as_float32_does(shape):
    torch.set_float32_matmul_precision(products.setting(CPU))
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(s, generator=generator) for s in ((m, k), (k, n)))
    for x, y in ((a, b), (a, b.t().contiguous().t()), (a.t().contiguous().t(), b)):
        error = ((x @ y).double() - x.double() @ y.double()).abs().max()
        assert error < 2e-5 * k**0.5  # bfloat16: above 1e-2


def test_the_setting_is_asked_for_and_not_made():
    torch.set_float32_matmul_precision("highest")
    products.setting(CPU)
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_processor_that_would_round_to_bfloat16_is_not_asked_to(monkeypatch):
    monkeypatch.setattr(products, "_onednn_may_be_asked", lambda: True)
    monkeypatch.setattr(products, "_keeps_float32", lambda: False)
    assert products.setting(CPU) == "highest"


def test_numbers_that_bfloat16_cannot_hold_show_whether_products_round(monkeypatch):
    assert products._keeps_float32()  # with the setting that torch begins with
    rounded = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b: rounded(a.bfloat16(), b.bfloat16()).float(),
    )
    assert not products._keeps_float32()


def test_gpus_multiply_in_tf32():
    assert products.setting(torch.device("cuda")) == "high"
