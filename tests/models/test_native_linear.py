"""One linear layer of the kernels, as Python sees it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from cluster.kernels import kernels, kernels_available

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (17, 63), (200, 576), (96, 1536)])
@pytest.mark.parametrize("rows", [1, 5, 97])
def test_float32_is_as_good_as_torch(outputs: int, inputs: int, rows: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    x, out = torch.randn(rows, inputs), torch.empty(rows, outputs)
    kernels().Linear(weight, bias, "float32", kernels().Threads(2)).apply(x, out)
    exact = linear(x.double(), weight.double(), bias.double())
    theirs = (linear(x, weight, bias) - exact).abs().max()
    assert (out - exact).abs().max() <= 2 * theirs + 1e-6


def test_int8_loses_what_the_rounding_of_its_weights_loses() -> None:
    torch.manual_seed(0)
    weight, x, out = torch.randn(96, 576), torch.randn(33, 576), torch.empty(33, 96)
    x[:, 5] *= 300
    kernels().Linear(weight, None, "int8", kernels().Threads(1)).apply(x, out)
    scale = weight.abs().amax(1, keepdim=True) / 127
    rounded = (weight / scale).round() * scale
    # An input 300 times the others costs them little: inputs have 16 bits. With 8 it would be 60.
    assert (out - x @ rounded.T).abs().max() < 1
    assert (out - x @ weight.T).abs().max() > 3


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        (torch.zeros(2, 5), torch.zeros(2, 3), r"x is contiguous float32 \[any, 4\]"),
        (torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, 3), "x is contiguous float32"),
        (torch.zeros(4, 2).T, torch.zeros(2, 3), "x is contiguous float32"),
        (torch.zeros(2, 4), torch.zeros(3, 3), r"out is contiguous float32 \[2, 3\]"),
        (torch.zeros(4), torch.zeros(3), "x is contiguous float32"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(
    x: torch.Tensor, out: torch.Tensor, message: str
) -> None:
    linear = kernels().Linear(torch.zeros(3, 4), None, "float32", kernels().Threads(1))
    with pytest.raises(ValueError, match=message):
        linear.apply(x, out)


def test_there_is_no_other_precision() -> None:
    with pytest.raises(ValueError, match="precision is float32 or int8"):
        kernels().Linear(torch.zeros(3, 4), None, "int4", kernels().Threads(1))
