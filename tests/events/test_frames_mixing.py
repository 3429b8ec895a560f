"""Mixing of batches: samples and labels in the same proportion."""

import pickle
import re

import numpy as np
import pytest
import torch

from jellyfit import frames as fr
from jellyfit.errors import InputError, InputTypeError

T, N, C = 4, 6, 3


def batch(dtype=torch.uint8, classes=N):
    """Sample n is full of n, and of class n."""
    x = torch.arange(N).view(1, N, 1, 1, 1).expand(T, N, C, 10, 12).to(dtype)
    return x, torch.eye(classes)[:N]


def rng(seed=0):
    return np.random.default_rng(seed)


def partners(seed):
    draws = rng(seed)
    draws.uniform()
    return draws.permutation(N)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.bfloat16, torch.float64])
def test_mixup_weighs_samples_and_labels_alike(seed, dtype):
    x, y = batch(dtype)
    mixed, labels, lengths = fr.Mixup()(x, y, rng(seed))
    assert mixed.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert lengths is None
    torch.testing.assert_close(labels.sum(1), torch.ones(N))
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    expected = (labels @ torch.arange(N, dtype=torch.float32)).view(1, N, 1, 1, 1).expand_as(mixed)
    torch.testing.assert_close(mixed.float(), expected.float(), atol=tolerance, rtol=tolerance)
    partner = partners(seed)
    for n in range(N):
        assert set(labels[n].nonzero().flatten().tolist()) <= {n, int(partner[n])}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.float32])
def test_cutmix_takes_a_rectangle_of_every_frame_and_labels_by_its_area(seed, dtype):
    x, y = batch(dtype)
    mixed, labels, _ = fr.CutMix()(x, y, rng(seed))
    assert mixed.dtype == dtype
    values, partner = mixed.to(torch.int64), partners(seed)
    taken = (values == torch.from_numpy(partner).view(1, N, 1, 1, 1)) & (values != x.to(torch.int64))
    assert ((values == x.to(torch.int64)) | taken).all()
    assert (taken == taken[:1, :, :1]).all(), "the same for all steps and channels"
    for n in range(N):
        if partner[n] == n:
            assert labels[n, n] == 1
            continue
        share = taken[0, n, 0].float().mean()
        torch.testing.assert_close(labels[n, int(partner[n])], share)
        rows, columns = taken[0, n, 0].any(1).nonzero(), taken[0, n, 0].any(0).nonzero()
        if len(rows):
            area = taken[0, n, 0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert area.all()


@pytest.mark.parametrize("cls", [fr.Mixup, fr.CutMix])
def test_the_batch_that_is_given_stays_as_it_is(cls):
    x, y = batch(torch.float32)
    x, before = x.contiguous(), (x.clone(), y.clone())
    cls()(x, y, rng(1))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("cls", [fr.Mixup, fr.CutMix])
def test_a_mixed_sample_is_as_long_as_the_longer_of_its_two(cls):
    x, y = batch()
    lengths = torch.tensor([4, 1, 2, 3, 1, 2])
    _, _, mixed = cls()(x, y, rng(3), lengths)
    other = lengths[torch.from_numpy(partners(3))]
    assert mixed.tolist() == [max(a, b) for a, b in zip(lengths.tolist(), other.tolist(), strict=True)]
    assert lengths.tolist() == [4, 1, 2, 3, 1, 2]


@pytest.mark.parametrize("cls", [fr.Mixup, fr.CutMix])
def test_batches_are_mixed_with_their_probability(cls):
    x, y = batch()
    mixed = sum(cls(p=0.3)(x, y, rng(seed))[0] is not x for seed in range(300))
    assert 60 < mixed < 120


def test_shares_are_drawn_from_a_beta_distribution():
    x, y = batch()
    for alpha, low, high in ((0.2, 0.35, 0.5), (1.0, 0.24, 0.34), (50.0, 0.0, 0.1)):
        shares = []
        for seed in range(200):
            labels = fr.Mixup(alpha)(x, y, rng(seed))[1]
            partner = partners(seed)
            n = next(n for n in range(N) if partner[n] != n)
            shares.append(float(labels[n, n]))
        assert low < np.std(shares) < high
        assert abs(np.mean(shares) - 0.5) < 0.1


@pytest.mark.parametrize("cls", [fr.Mixup, fr.CutMix])
def test_a_batch_of_one_or_of_none_is_no_trouble(cls):
    for n in (0, 1):
        x, y, _ = cls()(torch.ones(2, n, 2, 4, 4), torch.ones(n, 1), rng())
        assert x.shape == (2, n, 2, 4, 4)
        torch.testing.assert_close(x, torch.ones(2, n, 2, 4, 4))
        torch.testing.assert_close(y, torch.ones(n, 1))


def test_mixups_pickle_compare_and_draw_the_same_again():
    for mix in (fr.Mixup(), fr.Mixup(0.2), fr.CutMix(), fr.CutMix(p=0.5)):
        twin = pickle.loads(pickle.dumps(mix))
        assert twin == mix
        assert all(
            torch.equal(a, b) for a, b in zip(mix(*batch(), rng(4))[:2], twin(*batch(), rng(4))[:2], strict=True)
        )
    assert fr.Mixup() != fr.CutMix()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fr.Mixup(0), InputError, "alpha must be finite, above 0; got 0"),
        (lambda: fr.CutMix(p=2), InputError, "p must be a probability"),
        (lambda: fr.Mixup()(batch()[0], torch.arange(N), rng()), InputTypeError, "losses.soft_labels(y, classes)"),
        (
            lambda: fr.Mixup()(batch()[0], torch.eye(4), rng()),
            InputError,
            "got the shapes [4, 6, 3, 10, 12] and [4, 4]",
        ),
        (lambda: fr.Mixup()(*batch(), 3), InputTypeError, "rng must be a NumPy generator"),
        (
            lambda: fr.CutMix()(torch.ones(4, N, 5), batch()[1], rng()),
            InputError,
            "CutMix mixes frames [T, N, C, H, W]",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
