import math
import re

import pytest
import torch
import torch.nn.functional as F

from jellyfit import functional, losses
from jellyfit.errors import InputError, InputTypeError
from jellyfit.losses import (
    TET,
    Loss,
    MembraneCrossEntropy,
    MembraneReadout,
    PerStepCrossEntropy,
    RateCrossEntropy,
    RateMSE,
    RateReadout,
    Readout,
    hard_labels,
    padding_mask,
    soft_labels,
)

T, N, C = 6, 4, 5
TARGET = torch.tensor([3, 0, 4, 1])
LENGTHS = torch.tensor([6, 2, 1, 5])


def outputs(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*(shape or (T, N, C)), generator=torch.Generator().manual_seed(seed), dtype=dtype)


LOSSES = {
    "rate": RateCrossEntropy,
    "rate, smoothed": lambda: RateCrossEntropy(0.1),
    "membrane last": MembraneCrossEntropy,
    "membrane max": lambda: MembraneCrossEntropy("max", tau=2.0),
    "membrane mean": lambda: MembraneCrossEntropy("mean", tau=1.5, label_smoothing=0.2),
    "rate mse": RateMSE,
    "per step": PerStepCrossEntropy,
    "per step with its second term": lambda: PerStepCrossEntropy(0.1, mse_weight=0.05, mse_target=0.7),
    "tet": TET,
    "tet, smoothed": lambda: TET(0.2, means=0.5, label_smoothing=0.1),
}
READOUTS = {
    "rate": RateReadout,
    "last": MembraneReadout,
    "last, leaking": lambda: MembraneReadout("last", 2.5),
    "max": lambda: MembraneReadout("max"),
    "max, leaking": lambda: MembraneReadout("max", 2.5),
    "mean": lambda: MembraneReadout("mean"),
    "mean, leaking": lambda: MembraneReadout("mean", 2.5),
}
each_loss = pytest.mark.parametrize("build", LOSSES.values(), ids=LOSSES)
each_readout = pytest.mark.parametrize("build", READOUTS.values(), ids=READOUTS)

# ------------------------------------------------------------------ temporal efficient training


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_per_step_loss_of_one_step_is_cross_entropy(smoothing):
    y_seq = outputs(1, N, C)
    expected = F.cross_entropy(y_seq[0], TARGET, label_smoothing=smoothing)
    torch.testing.assert_close(PerStepCrossEntropy(smoothing)(y_seq, TARGET), expected)


def test_tet_is_what_its_paper_says():
    y_seq = outputs()
    cross_entropies = [F.cross_entropy(y, TARGET) for y in y_seq]
    pull = F.mse_loss(y_seq, torch.full_like(y_seq, 1.0))
    expected = (1 - 1e-3) * sum(cross_entropies) / T + 1e-3 * pull
    torch.testing.assert_close(TET()(y_seq, TARGET), expected)
    own = 0.7 * sum(cross_entropies) / T + 0.3 * F.mse_loss(y_seq, torch.full_like(y_seq, 0.5))
    torch.testing.assert_close(TET(lamb=0.3, means=0.5)(y_seq, TARGET), own)


def test_tet_of_ended_samples_is_that_of_their_valid_steps():
    y_seq = outputs()
    alone = [TET(0.3)(y_seq[:length, i : i + 1], TARGET[i : i + 1]) for i, length in enumerate(LENGTHS.tolist())]
    torch.testing.assert_close(TET(0.3)(y_seq, TARGET, LENGTHS), torch.stack(alone).mean())


@pytest.mark.parametrize(
    "loss", [RateCrossEntropy, MembraneCrossEntropy, PerStepCrossEntropy, TET], ids=lambda loss: loss.__name__
)
def test_smoothing_moves_a_share_of_every_label_to_all_classes_alike(loss):
    y_seq, shares = outputs(), torch.softmax(outputs(N, C, seed=1), -1)
    plain, smoothed = loss(label_smoothing=0.0), loss(label_smoothing=0.15)
    for target, vector in ((shares, shares), (TARGET, F.one_hot(TARGET, C).double())):
        for lengths in (None, LENGTHS):
            expected = plain(y_seq, 0.85 * vector + 0.15 / C, lengths)
            torch.testing.assert_close(smoothed(y_seq, target, lengths), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_per_step_loss_of_outputs_constant_over_time_is_that_of_the_rate(smoothing):
    y_seq = outputs(1, N, C).expand(T, N, C)
    torch.testing.assert_close(
        PerStepCrossEntropy(smoothing)(y_seq, TARGET), RateCrossEntropy(smoothing)(y_seq, TARGET)
    )


def test_per_step_loss_is_never_below_that_of_the_rate():
    for seed in range(20):
        y_seq = outputs(seed=seed)
        assert PerStepCrossEntropy()(y_seq, TARGET) > RateCrossEntropy()(y_seq, TARGET)  # Jensen's inequality


def test_gradient_of_the_per_step_loss_is_the_closed_form():
    y_seq = outputs().requires_grad_()
    PerStepCrossEntropy()(y_seq, TARGET).backward()
    expected = (y_seq.detach().softmax(-1) - F.one_hot(TARGET, C)) / (N * T)
    torch.testing.assert_close(y_seq.grad, expected)


def test_second_term_of_the_per_step_loss_pulls_outputs_to_its_target():
    y_seq = outputs()
    cross_entropy = PerStepCrossEntropy()(y_seq, TARGET)
    both = PerStepCrossEntropy(mse_weight=0.05, mse_target=0.7)(y_seq, TARGET)
    torch.testing.assert_close(both, 0.95 * cross_entropy + 0.05 * ((y_seq - 0.7) ** 2).mean())
    alone = PerStepCrossEntropy(mse_weight=1.0)
    assert alone(torch.ones(T, N, C), TARGET) == 0.0


# ------------------------------------------------------------------ the other losses


def test_rate_cross_entropy_is_that_of_the_mean_over_time():
    y_seq = outputs()
    torch.testing.assert_close(RateCrossEntropy()(y_seq, TARGET), F.cross_entropy(y_seq.mean(0), TARGET))


def test_rate_mse_compares_rates_with_the_one_hot_label():
    y_seq = torch.zeros(4, 2, 3)
    y_seq[0:2, 0, 1] = 1.0  # sample 0: rate 1/2 for class 1, its label
    y_seq[:, 1, 2] = 1.0  # sample 1: rate 1 for class 2; its label is 0
    loss = RateMSE()(y_seq, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((0.5**2 + 1 + 1) / (2 * 3))


def test_uniform_outputs_cost_the_logarithm_of_the_number_of_classes():
    for name in ("rate", "membrane last", "membrane max", "per step"):
        assert LOSSES[name]()(torch.zeros(T, N, C), TARGET).item() == pytest.approx(math.log(C))


@pytest.mark.parametrize("mode", ["last", "max", "mean"])
@pytest.mark.parametrize("tau", [None, 2.5])
def test_membrane_cross_entropy_is_that_of_its_readout(mode, tau):
    y_seq = outputs()
    loss = MembraneCrossEntropy(mode, tau)
    assert (loss.readout.mode, loss.readout.tau) == (mode, tau)
    expected = F.cross_entropy(MembraneReadout(mode, tau)(y_seq), TARGET)
    torch.testing.assert_close(loss(y_seq, TARGET), expected)


@each_loss
def test_gradient_is_that_of_finite_differences(build):
    y_seq, target = outputs(3, 2, 3).requires_grad_(), torch.tensor([2, 0])
    for lengths in (None, torch.tensor([3, 2])):
        assert torch.autograd.gradcheck(lambda y, n=lengths: build()(y, target, n), (y_seq,))


@each_loss
def test_loss_is_a_scalar_with_the_readout_for_its_predictions(build):
    loss = build()
    assert loss(outputs(), TARGET).shape == ()
    assert loss.readout(outputs()).shape == (N, C)


# ------------------------------------------------------------------ readouts


@pytest.mark.parametrize("tau", [None, 1.0, 2.5])
@pytest.mark.parametrize("mode", ["last", "max", "mean"])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_membrane_readout_is_a_neuron_that_never_fires(mode, tau, lengths):
    y_seq = outputs()
    scores = MembraneReadout(mode, tau)(y_seq, lengths)
    for n in range(N):
        for c in range(C):
            v, trace = 0.0, []
            for t in range(T if lengths is None else int(lengths[n])):
                y = y_seq[t, n, c].item()
                v = v + y if tau is None else v + (y - v) / tau
                trace.append(v)
            expected = {"last": trace[-1], "max": max(trace), "mean": sum(trace) / len(trace)}[mode]
            assert scores[n, c].item() == pytest.approx(expected)


def test_rate_readout_is_the_mean_over_valid_steps():
    y_seq = outputs()
    torch.testing.assert_close(RateReadout()(y_seq), y_seq.mean(0))
    scores = RateReadout()(y_seq, LENGTHS)
    for n, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(scores[n], y_seq[:length, n].mean(0))


# ------------------------------------------------------------------ lengths


@each_readout
def test_readout_of_a_padded_batch_is_that_of_the_samples_alone(build):
    y_seq = outputs()
    for n, length in enumerate(LENGTHS.tolist()):
        y_seq[length:, n] = 1e6  # whatever the network made of the padding
    scores = build()(y_seq, LENGTHS)
    alone = [build()(y_seq[:length, n : n + 1])[0] for n, length in enumerate(LENGTHS.tolist())]
    torch.testing.assert_close(scores, torch.stack(alone))


@each_loss
def test_loss_of_a_padded_batch_is_the_mean_of_the_samples_alone_and_sends_no_gradient_into_padding(build):
    y_seq = outputs()
    for n, length in enumerate(LENGTHS.tolist()):
        y_seq[length:, n] = 1e3
    y_seq.requires_grad_()
    loss = build()(y_seq, TARGET, LENGTHS)
    alone = [
        build()(y_seq[:length, n : n + 1], TARGET[n : n + 1], LENGTHS[n : n + 1])
        for n, length in enumerate(LENGTHS.tolist())
    ]
    torch.testing.assert_close(loss, torch.stack(alone).mean())
    loss.backward()
    for n, length in enumerate(LENGTHS.tolist()):
        assert not y_seq.grad[length:, n].any()
        assert y_seq.grad[:length, n].any()


@each_loss
def test_full_lengths_change_nothing(build):
    full = torch.full((N,), T)
    torch.testing.assert_close(build()(outputs(), TARGET, full), build()(outputs(), TARGET))
    torch.testing.assert_close(build()(outputs(), TARGET, full.int()), build()(outputs(), TARGET))


@each_loss
@pytest.mark.parametrize("lengths", [[0, 1, 1, 1], [1, 1, 1, T + 1], [1, 1, 1], [-1, 1, 1, 1]])
def test_lengths_that_do_not_fit_are_refused(build, lengths):
    told = f"lengths: expected {N} values from 1 to T = {T}; got {lengths}."
    with pytest.raises(InputError, match=re.escape(told)):
        build()(outputs(), TARGET, torch.tensor(lengths))


# ------------------------------------------------------------------ mixed labels


def shares(dtype=torch.float64):
    mixed = torch.rand(N, C, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return (mixed / mixed.sum(1, keepdim=True)).to(dtype)


@each_loss
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_shares_that_are_all_of_one_class_cost_what_its_label_costs(build, lengths):
    soft = soft_labels(TARGET, C)
    torch.testing.assert_close(build()(outputs(), soft, lengths), build()(outputs(), TARGET, lengths))


@pytest.mark.parametrize("name", [name for name in LOSSES if "mse" not in name and "second" not in name])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_cross_entropy_of_mixed_labels_is_the_mean_over_the_classes_weighted_by_their_shares(name, lengths):
    build, y_seq, mixed = LOSSES[name], outputs(), shares()
    expected = 0.0
    for n in range(N):
        for c in range(C):
            alone = lengths if lengths is None else lengths[n : n + 1]
            expected += mixed[n, c] * build()(y_seq[:, n : n + 1], torch.tensor([c]), alone) / N
    torch.testing.assert_close(build()(y_seq, mixed, lengths), expected)


def test_squared_error_of_mixed_labels_is_to_their_shares():
    y_seq = outputs()
    torch.testing.assert_close(RateMSE()(y_seq, shares()), ((y_seq.mean(0) - shares()) ** 2).mean())


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_shares_of_any_dtype_are_taken(build, dtype):
    loss = build()(outputs(), shares(dtype))
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, build()(outputs(), shares()), rtol=2e-3, atol=2e-3)


@each_loss
def test_gradient_under_mixed_labels_is_that_of_finite_differences(build):
    y_seq, mixed = outputs(3, 2, 3).requires_grad_(), torch.tensor([[0.2, 0.8, 0.0], [0.5, 0.0, 0.5]]).double()
    assert torch.autograd.gradcheck(lambda y: build()(y, mixed, torch.tensor([3, 2])), (y_seq,))


@each_loss
@pytest.mark.parametrize(
    ("mixed", "told"),
    [
        (shares()[:, :4], "shape [4, 5]; got [4, 4]. Set the backbone's num_classes"),
        (shares()[:3], "shape [4, 5]; got [3, 5]"),
        (shares() * 2, "at least 0 and sum to 1; those of sample 0 are"),
        (shares() - torch.tensor([0.0, 0.0, 0.0, 1.0, -1.0]), "at least 0 and sum to 1"),
        (torch.full((N, C), float("nan")), "at least 0 and sum to 1"),
    ],
)
def test_shares_that_do_not_fit_are_refused(build, mixed, told):
    with pytest.raises(InputError, match=re.escape(told)):
        build()(outputs(), mixed)


def test_labels_turn_into_shares_and_back():
    soft = soft_labels(TARGET.to(torch.uint8), C)
    assert soft.dtype == torch.float32
    assert torch.equal(soft, F.one_hot(TARGET, C).float())
    assert soft_labels(soft, C) is soft
    assert torch.equal(hard_labels(soft), TARGET)
    assert hard_labels(TARGET.int()).dtype == torch.int64
    assert torch.equal(hard_labels(shares()), shares().argmax(1))
    with pytest.raises(InputError, match="labels run from 0 to 4; expected 0 to 3"):
        soft_labels(TARGET, 4)
    with pytest.raises(InputError, match="sum to 1"):
        soft_labels(torch.zeros(2, 3), 3)
    assert soft_labels(TARGET[:0], C).shape == (0, C)


def test_a_padding_mask_is_true_where_samples_have_not_ended():
    mask = padding_mask(LENGTHS, T)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[t < length for length in LENGTHS.tolist()] for t in range(T)]
    assert padding_mask(LENGTHS[:0], T).shape == (T, 0)
    for wrong in ([0, 1], [7], [[1]]):
        with pytest.raises(InputError, match=rf"from 1 to T = {T}; got"):
            padding_mask(torch.tensor(wrong), T)


# ------------------------------------------------------------------ dtypes


@each_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_cost_what_they_cost_in_float32(build, dtype):
    y_seq = outputs(dtype=torch.float32).to(dtype).requires_grad_()
    loss = build()(y_seq, TARGET)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, build()(y_seq.float(), TARGET))
    assert build().readout(y_seq).dtype == torch.float32
    loss.backward()
    assert y_seq.grad.dtype == dtype and y_seq.grad.any()


@each_loss
def test_double_precision_stays(build):
    assert build()(outputs(), TARGET).dtype == torch.float64
    assert build()(outputs(), TARGET, LENGTHS).dtype == torch.float64


@each_loss
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_integer_dtype_are_taken(build, dtype):
    assert torch.equal(build()(outputs(), TARGET.to(dtype)), build()(outputs(), TARGET))


# ------------------------------------------------------------------ errors


@each_loss
@pytest.mark.parametrize("target", [TARGET.float(), TARGET > 0], ids=["float", "bool"])
def test_labels_that_are_no_integers_are_refused(build, target):
    with pytest.raises(InputTypeError, match=rf"class labels as integers; got dtype {target.dtype}. Use target.long"):
        build()(outputs(), target)


@each_loss
@pytest.mark.parametrize(
    ("label", "told"), [(C, f"run from 0 to {C}"), (-1, "run from -1 to 4"), (-100, "run from -100")]
)
def test_labels_outside_the_outputs_are_refused(build, label, told):
    target = TARGET.clone()
    target[3] = label
    with pytest.raises(InputError, match=rf"labels {told}.*{C} outputs \(labels 0 to 4\).*num_classes"):
        build()(outputs(), target)


@each_loss
@pytest.mark.parametrize("target", [TARGET[:3], TARGET[None], F.one_hot(TARGET, C), torch.tensor(1)])
def test_labels_of_another_shape_are_refused(build, target):
    told = f"labels of shape [{N}], one a sample; got {list(target.shape)}"
    with pytest.raises(InputError, match=re.escape(told)):
        build()(outputs(), target)


@each_loss
def test_an_output_with_the_batch_first_is_told_how_to_turn(build):
    swapped = functional.batch_first(outputs())
    with pytest.raises(InputError, match=re.escape("[N, T, C], give functional.time_first(output).")):
        build()(swapped, TARGET)
    build()(functional.time_first(swapped), TARGET)


@pytest.mark.parametrize(
    "build", [*LOSSES.values(), *READOUTS.values()], ids=[*LOSSES, *(f"read {r}" for r in READOUTS)]
)
@pytest.mark.parametrize("shape", [(N, C), (T, N, C, 1), (0, N, C)])
def test_outputs_that_are_no_sequence_are_refused(build, shape):
    module = build()
    arguments = (TARGET,) if isinstance(module, Loss) else ()
    with pytest.raises(InputError, match=re.escape(f"[T, N, C] with T >= 1; got shape {list(shape)}")):
        module(torch.zeros(shape), *arguments)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: RateCrossEntropy(1.5), r"RateCrossEntropy\(label_smoothing=1.5\): expected 0 to 1"),
        (lambda: MembraneCrossEntropy(label_smoothing=-0.1), r"MembraneCrossEntropy\(label_smoothing=-0.1\)"),
        (lambda: PerStepCrossEntropy(label_smoothing=2), r"PerStepCrossEntropy\(label_smoothing=2\)"),
        (lambda: TET(lamb=1.5), r"TET\(lamb=1.5\): expected 0 to 1"),
        (lambda: TET(label_smoothing=2), r"TET\(label_smoothing=2\)"),
        (lambda: PerStepCrossEntropy(mse_weight=float("nan")), r"PerStepCrossEntropy\(mse_weight=nan\)"),
        (lambda: MembraneCrossEntropy("sum"), r"MembraneReadout\(mode='sum'\): expected 'last', 'max' or 'mean'"),
        (lambda: MembraneReadout(tau=0.5), r"MembraneReadout\(tau=0.5\).*at least 1"),
        (lambda: MembraneReadout(tau=float("nan")), r"MembraneReadout\(tau=nan\)"),
    ],
)
def test_settings_that_cannot_work_are_refused(build, told):
    with pytest.raises(InputError, match=told):
        build()


@pytest.mark.parametrize(
    ("cls", "arguments", "told"),
    [
        (Loss, (outputs(), TARGET), "forward(self, y_seq, target, lengths=None)"),
        (Readout, (outputs(),), "forward(self, y_seq"),
    ],
)
def test_subclass_without_forward_is_told_what_to_write(cls, arguments, told):
    with pytest.raises(TypeError, match=re.escape(f"Own must define {told}")):
        type("Own", (cls,), {})()(*arguments)


def test_every_public_name_is_documented():
    assert len(set(losses.__all__)) == len(losses.__all__)
    for name in losses.__all__:
        assert getattr(losses, name).__doc__, name
