"""Spikes kept as bits."""

import pytest
import torch
from torch import nn

from jellyfit import native
from jellyfit.errors import ConfigError
from jellyfit.kernels import SpikeCompression, compression
from jellyfit.kernels.compression import _pack, _unpack

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def spikes(*shape, dtype=torch.float32, seed=0):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.3).to(dtype)


@pytest.fixture(params=["C", "torch"])
def codec(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(compression, "_codec", lambda dtype: None)
    elif not native.status().usable:
        pytest.skip("no C compiler")
    return request.param


@pytest.mark.parametrize("bits", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 7, 8, 63, 64, 65, 1000, 16384, 16385, 40001])
def test_spikes_come_back_to_the_bit(codec, size, dtype, bits):
    x = spikes(size, dtype=dtype)
    packed = _pack(x, bits)
    assert packed.data.numel() == (-(-size // 8) if bits else size)
    assert torch.equal(_unpack(packed), x) and _unpack(packed).dtype == dtype


@pytest.mark.parametrize("bad", [0.5, -1.0, 2.0, float("nan"), float("inf"), 1.0000001, 1e-42, -0.0])
@pytest.mark.parametrize("place", [0, 5, 2000, 40000])
def test_anything_but_zeros_and_ones_is_left_alone(codec, bad, place):
    x = spikes(40001)
    x[place] = bad
    if bad == 0.0 and codec == "torch":  # minus zero compares equal to zero there, and comes back as zero
        return
    assert _pack(x, True) is None


def test_memory_format_comes_back():
    x = spikes(4, 3, 6, 5).to(memory_format=torch.channels_last)
    back = _unpack(_pack(x, True))
    assert back.stride() == x.stride() and torch.equal(back, x)


def test_weights_small_and_strided_tensors_are_kept_as_they_are():
    layer = nn.Linear(2000, 3, bias=False)
    nn.init.ones_(layer.weight)
    wide = spikes(50, 4000)[:, ::2]
    with SpikeCompression() as context:
        layer(wide).sum().backward()
        layer(spikes(1, 2000)[:, :2000]).sum()
    assert context.dense_bytes == 8000  # only the last
    small = SpikeCompression(minimum=3000)
    with small:
        layer(spikes(1, 2000)).sum()
    assert small.dense_bytes == 0


def test_it_says_what_it_saved_and_refuses_unknown_storage():
    with SpikeCompression() as context:
        nn.Linear(2048, 3)(spikes(512, 2048))
    assert repr(context) == "SpikeCompression(storage='bits'): 4.0 MiB of spikes kept in 0.1 MiB"
    with pytest.raises(ConfigError, match="storage='float'.*'bits' or 'uint8'"):
        SpikeCompression("float")


def test_contexts_may_be_nested_and_entered_again():
    layer, x = nn.Linear(2048, 3), spikes(4, 2048)
    context = SpikeCompression()
    for _ in range(2):
        with context:
            layer(x).sum().backward()
    assert context.dense_bytes == 2 * x.numel() * 4
