"""Normalisations made for spiking networks."""

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.errors import ConfigError, InputError, StateError
from jellyfit.neurons import IFNode

SHAPES = {"1d": (5,), "2d": (4, 5), "3d": (2, 4, 5)}
each_rank = pytest.mark.parametrize("rank", SHAPES)


def draw(*shape, seed=0):
    return 2.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.7


# ---------------------------------------------------------------- tdBN


@each_rank
def test_what_a_threshold_dependent_norm_gives_has_the_threshold_as_its_spread(rank):
    norm = getattr(layers, f"ThresholdDependentBatchNorm{rank}")(0.5, 3.0, 3)
    y_seq = norm(draw(6, 20, 3, *SHAPES[rank])).transpose(0, 2).flatten(1)
    torch.testing.assert_close(y_seq.std(1), torch.full((3,), 1.5), rtol=1e-2, atol=0.0)
    torch.testing.assert_close(y_seq.mean(1), torch.zeros(3), rtol=0.0, atol=1e-5)


@each_rank
def test_a_threshold_dependent_norm_of_threshold_one_is_a_batch_norm(rank):
    one = getattr(layers, f"ThresholdDependentBatchNorm{rank}")(1.0, 1.0, 3)
    other = getattr(layers, f"BatchNorm{rank}")(3, step_mode="m")
    assert isinstance(one, type(other)) and one.step_mode == "m"
    x_seq = draw(6, 2, 3, *SHAPES[rank])
    for training in (True, False):
        assert torch.equal(one.train(training)(x_seq), other.train(training)(x_seq))
    other.load_state_dict(one.state_dict())
    getattr(nn, f"BatchNorm{rank}")(3).load_state_dict(one.state_dict())


def test_resetting_the_parameters_of_a_threshold_dependent_norm_keeps_the_threshold():
    norm = layers.ThresholdDependentBatchNorm2d(0.5, 3.0, 2)
    norm.weight.data.zero_()
    norm.running_mean.fill_(7.0)
    norm.reset_parameters()
    assert norm.weight.tolist() == [1.5, 1.5] and norm.running_mean.tolist() == [0.0, 0.0]
    assert "alpha=0.5, v_th=3.0, 2" in repr(norm)


def test_a_threshold_dependent_norm_needs_its_weight():
    with pytest.raises(ConfigError, match=r"ThresholdDependentBatchNorm1d\(affine=False\)"):
        layers.ThresholdDependentBatchNorm1d(1.0, 1.0, 3, affine=False)


# ---------------------------------------------------------------- TEBN


@each_rank
def test_a_temporal_effective_norm_is_a_batch_norm_times_a_factor_a_step(rank):
    norm = getattr(layers, f"TemporalEffectiveBatchNorm{rank}")(4, 3)
    plain = getattr(layers, f"BatchNorm{rank}")(3, step_mode="m")
    x_seq = draw(4, 2, 3, *SHAPES[rank])
    assert torch.equal(norm(x_seq), plain(x_seq))
    norm.scale.data = torch.tensor([0.5, 1.0, -2.0, 3.0])
    torch.testing.assert_close(norm(x_seq), torch.stack([f * y for f, y in zip(norm.scale, plain(x_seq), strict=True)]))
    norm(x_seq).square().sum().backward()
    assert bool((norm.scale.grad != 0.0).all())
    assert list(norm.state_dict()) == ["weight", "bias", "scale", "running_mean", "running_var", "num_batches_tracked"]


@pytest.mark.parametrize("steps", [3, 5])
def test_a_temporal_effective_norm_takes_sequences_of_its_length(steps):
    norm = layers.TemporalEffectiveBatchNorm1d(4, 3)
    with pytest.raises(InputError, match=rf"sequences of T = 4 steps; got shape \[{steps}, 2, 3\]"):
        norm(draw(steps, 2, 3))


def test_single_steps_of_a_temporal_effective_norm_are_counted_until_a_reset():
    norm = layers.TemporalEffectiveBatchNorm1d(2, 3, step_mode="s").eval()
    norm.scale.data = torch.tensor([1.0, 10.0])
    x = draw(2, 3)
    first, second = norm(x), norm(x)
    torch.testing.assert_close(second, 10.0 * first)
    with pytest.raises(StateError, match="got step 3 of a sequence of T = 2.*reset_net"):
        norm(x)
    functional.reset_net(norm)
    assert torch.equal(norm(x), first)
    norm.step_mode = "m"
    assert norm(draw(2, 2, 3)).shape == norm(draw(2, 2, 3)).shape  # whole sequences are not counted
    assert norm.t == 1


# ---------------------------------------------------------------- BNTT


@each_rank
def test_every_step_has_a_norm_of_its_own(rank):
    norm = getattr(layers, f"BatchNormThroughTime{rank}")(3, 4, eps=1e-3, momentum=1.0, step_mode="m")
    x_seq = draw(3, 8, 4, *SHAPES[rank]) * torch.tensor([1.0, 2.0, 3.0]).view(3, *[1] * (2 + len(SHAPES[rank])))
    y_seq = norm(x_seq)
    for x, y, own in zip(x_seq, y_seq, norm.bn_list, strict=True):
        plain = getattr(nn, f"BatchNorm{rank}")(4, eps=1e-3, momentum=1.0)
        torch.testing.assert_close(y, plain(x))
        torch.testing.assert_close(own.running_var, plain.running_var)
        assert own.bias is None and isinstance(own.weight, nn.Parameter)
    assert norm.bn_list[0].running_var.sum() < norm.bn_list[1].running_var.sum() < norm.bn_list[2].running_var.sum()


def test_more_steps_than_norms_are_an_error_that_teaches():
    norm = layers.BatchNormThroughTime1d(3, 4, step_mode="m")
    norm(draw(2, 5, 4))
    assert norm.t == 1
    with pytest.raises(StateError, match=r"got step 4 of a sequence, but it has norms for 3\..*reset_net"):
        norm(draw(2, 5, 4))
    functional.reset_net(norm)
    assert norm.t == -1 and norm(draw(3, 5, 4)).shape == (3, 5, 4)


def test_norms_of_a_step_share_their_statistics_after_torchs_conversion():
    """Torch converts the norms in the list, which know no step modes anyway."""
    norm = layers.BatchNormThroughTime2d(2, 3, step_mode="m").eval()
    x_seq = draw(2, 2, 3, 4, 4)
    expected = norm(x_seq)
    functional.reset_net(norm)
    norm = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    assert isinstance(norm.bn_list[0], nn.SyncBatchNorm)
    torch.testing.assert_close(norm(x_seq), expected)


@pytest.mark.parametrize("kind", ["BatchNormThroughTime2d", "TemporalEffectiveBatchNorm2d"])
def test_no_time_steps_are_refused(kind):
    with pytest.raises(InputError, match=r"\(T=0\): expected at least 1 time step"):
        getattr(layers, kind)(0, 3)


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("kind", ["ThresholdDependentBatchNorm", "TemporalEffectiveBatchNorm", "BatchNormThroughTime"])
def test_norms_of_other_channels_or_axes_are_an_error_that_teaches(kind, rank):
    arguments = (1.0, 1.0, 3) if kind.startswith("Thr") else (4, 3)
    norm = getattr(layers, kind + rank)(*arguments, step_mode="m")
    with pytest.raises(InputError, match=r"with num_features = 3 on axis 2, which has 4.*time_first"):
        norm(draw(4, 2, 4, *SHAPES[rank]))
    with pytest.raises(InputError, match=r"in step mode 'm': got shape .*expected \[T, N, C"):
        norm(draw(4, 2, 3, *SHAPES[rank], 1, 1))


def test_norms_that_count_steps_are_not_merged_into_the_batch():
    with pytest.raises(TypeError, match="remembers from one step to the next"):
        layers.SeqToANNContainer(layers.BatchNormThroughTime2d(4, 3))


# ---------------------------------------------------------------- NeuNorm


@pytest.mark.parametrize("shared", [True, False])
def test_neuron_normalisation_is_what_it_says(shared):
    norm = layers.NeuNorm(3, 4, 5, k=0.8, shared_across_channels=shared, step_mode="m").double()
    assert norm.w.shape == (1 if shared else 3, 4, 5)
    x_seq = (draw(6, 2, 3, 4, 5) > 1.0).double()
    y_seq = norm(x_seq)
    ages = torch.arange(6.0, dtype=torch.float64)
    weights = torch.tril(0.8 ** (ages[:, None] - ages)) * 0.2 / 9.0  # of every step in every later one
    u_seq = torch.einsum("ts,snhw->tnhw", weights, x_seq.sum(2)).unsqueeze(2)
    torch.testing.assert_close(y_seq, x_seq - norm.w * u_seq)
    torch.testing.assert_close(norm.x, u_seq[-1])


def test_neuron_normalisation_of_other_images_is_an_error_that_teaches():
    norm = layers.NeuNorm(3, 4, 5)
    with pytest.raises(InputError, match=r"got shape \[2, 3, 5, 4\]; expected height and width \[4, 5\]"):
        norm(draw(2, 3, 5, 4))
    with pytest.raises(InputError, match=r"with in_channels = 3 on axis 1, which has 1"):
        norm(draw(2, 1, 4, 5))


# ---------------------------------------------------------------- as one kernel with a neuron


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (lambda: layers.BatchNorm1d(6, step_mode="m"), (5, 4, 6)),
        (lambda: layers.BatchNorm1d(6, step_mode="m"), (5, 4, 6, 7)),
        (lambda: layers.BatchNorm2d(6, step_mode="m"), (5, 4, 6, 7, 3)),
        (lambda: layers.BatchNorm3d(6, step_mode="m"), (5, 2, 6, 3, 4, 5)),
        (lambda: layers.ThresholdDependentBatchNorm2d(1.0, 0.5, 6), (5, 2, 6, 3, 4)),
    ],
)
def test_norms_of_every_rank_run_as_one_with_the_neuron_behind_them(norm, shape, monkeypatch):
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        net = layers.Sequential(norm(), IFNode(step_mode="m"))
        nn.init.uniform_(net[0].weight, 0.5, 1.5)
        nn.init.normal_(net[0].bias)
        calls = []
        if not fused:
            net[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))  # someone looks in between
        else:
            monkeypatch.setattr(nn.functional, "batch_norm", lambda *_, **__: pytest.fail("two layers"))
        x_seq = draw(*shape).requires_grad_()
        spikes = net(x_seq)
        spikes.backward(draw(*shape, seed=1))
        monkeypatch.undo()
        assert bool(calls) != fused
        results.append([spikes, net[1].v, x_seq.grad, *(p.grad for p in net.parameters()), *net.buffers()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize(
    "norm",
    [
        lambda: layers.TemporalEffectiveBatchNorm2d(5, 3),
        lambda: layers.BatchNorm2d(3, bias=False, step_mode="m"),
        lambda: layers.BatchNorm2d(3, affine=False, step_mode="m"),
        lambda: type("Own", (layers.BatchNorm2d,), {"run": lambda self, x: 2.0 * x})(3, step_mode="m"),
    ],
)
def test_norms_that_do_more_or_less_run_before_the_neuron(norm):
    norm, node = norm(), IFNode(step_mode="m")
    if isinstance(norm, layers.TemporalEffectiveBatchNorm2d):
        norm.scale.data = torch.arange(5.0)
    x_seq = draw(5, 2, 3, 4, 4)
    assert torch.equal(layers.Sequential(norm, node)(x_seq), IFNode(step_mode="m")(norm(x_seq)))
