"""Functions that kernels compute as eager PyTorch does."""

import pytest
import torch

from jellyfit.kernels import vector
from jellyfit.neurons import BaseNode

FUNCTIONS = (
    "exp",
    "log",
    "sin",
    "cos",
    "tan",
    "atan",
    "tanh",
    "erf",
    "expm1",
    "log1p",
    "sinh",
    "cosh",
    "sigmoid",
    "sqrt",
    "rsqrt",
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_in_a_kernel_is_eagers(name, dtype):
    class Node(BaseNode):
        def neuronal_charge(self, x):
            self.v = getattr(torch, name)(x) + self.v * 0.5

    x = 3.0 * torch.randn(3, 5001, generator=torch.Generator().manual_seed(0), dtype=dtype)
    x = x.abs() if name in ("log", "log1p", "sqrt", "rsqrt") else x
    found = []
    for backend in ("cpu", "torch"):
        node = Node(step_mode="m", backend=backend, v_threshold=0.5)
        found.append((node(x), node.v))
    if name in vector.available(dtype) or name == "rsqrt":
        assert torch.equal(found[0][1], found[1][1]) and torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_functions_of_this_torch_are_found():
    if not torch.backends.mkl.is_available():
        pytest.skip("this build of torch has no MKL to take them from")
    assert {"exp", "tanh", "erf"} <= set(vector.available(torch.float32))
