import math
import pickle

import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from jellyfit import functional, layers
from jellyfit.backbones import SpikingMLP
from jellyfit.errors import ConfigError, InputError
from jellyfit.losses import padding_mask
from jellyfit.metrics import Accuracy, FiringRateMeter, SpikeRecorder, WeightedMean
from jellyfit.neurons import IFNode


def two_layers(step_mode="m"):
    """Layer "0" fires every second step of 0.5; layer "2" receives half a spike, so fires every fourth."""
    net = nn.Sequential(IFNode(), layers.Linear(2, 2, bias=False), IFNode())
    nn.init.constant_(net[1].weight, 0.25)
    functional.set_step_mode(net, step_mode)
    return net


def run(net, x_seq):
    return net(x_seq) if net[0].step_mode == "m" else torch.stack([net(x) for x in x_seq])


def hooks(net):
    return sum(len(module._forward_hooks) for module in net.modules())


HALF = torch.full((8, 3, 2), 0.5)


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_firing_rate_is_spikes_per_neuron_sample_and_step(step_mode):
    net = two_layers(step_mode)
    with FiringRateMeter(net) as meter:
        run(net, HALF)
    assert meter.rates() == {"0": 0.5, "2": 0.25}


def test_firing_rate_weighs_every_call_by_its_size():
    net = two_layers()
    with FiringRateMeter(net) as meter:
        net(torch.ones(2, 3, 2))  # 1 spike a neuron and step
        functional.reset_net(net)
        net(torch.zeros(6, 1, 2))  # none
    assert meter.rates()["0"] == pytest.approx(12 / (12 + 12))


def test_spikes_in_padding_count_for_nothing():
    net, x_seq = two_layers(), torch.rand(6, 4, 2, generator=torch.Generator().manual_seed(0)) * 2
    lengths = torch.tensor([6, 2, 1, 5])
    meter = FiringRateMeter(net)
    with meter:
        meter.valid = padding_mask(lengths, 6)
        net(x_seq)
    padded = {name: (float(total), count) for name, (total, count) in meter.sums().items()}
    alone = dict.fromkeys(padded, (0.0, 0))
    for n, length in enumerate(lengths.tolist()):
        functional.reset_net(net)
        meter.valid = None
        with meter:
            net(x_seq[:length, n : n + 1])
        for name, (total, count) in meter.sums().items():
            alone[name] = (alone[name][0] + float(total), alone[name][1] + count)
    assert padded == alone
    assert all(total > 0 for total, _ in alone.values())


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_samples_that_do_not_count(step_mode):
    net, x_seq = two_layers(step_mode), torch.rand(6, 4, 2, generator=torch.Generator().manual_seed(0)) * 2
    valid = torch.tensor([True, False, False, True])
    with FiringRateMeter(net) as meter:
        meter.valid = valid
        run(net, x_seq)
    functional.reset_net(net)
    with FiringRateMeter(net) as alone:
        run(net, x_seq[:, valid])
    assert meter.sums() == alone.sums()
    assert meter.rates()["2"] > 0


def test_firing_rate_of_half_precision_counts_exactly():
    net = nn.Sequential(IFNode(step_mode="m"))
    with FiringRateMeter(net) as meter:
        net(torch.ones(3, 1, 1001, dtype=torch.bfloat16))  # 3003 is no bfloat16
    assert meter.rates() == {"0": 1.0}


@pytest.mark.parametrize("watch", [FiringRateMeter, SpikeRecorder])
def test_hooks_are_removed_and_what_was_seen_is_kept(watch):
    net = two_layers()
    watcher = watch(net)
    assert hooks(net) == 0
    with watcher as entered:
        assert entered is watcher
        assert hooks(net) == 2
        net(HALF)
    assert hooks(net) == 0
    seen = watcher.rates() if watch is FiringRateMeter else {k: v.tolist() for k, v in watcher.spikes().items()}
    net(HALF)
    assert seen == (
        watcher.rates() if watch is FiringRateMeter else {k: v.tolist() for k, v in watcher.spikes().items()}
    )
    assert set(seen) == {"0", "2"}


@pytest.mark.parametrize("watch", [FiringRateMeter, SpikeRecorder])
def test_hooks_are_removed_when_the_network_fails(watch):
    net = two_layers()
    with pytest.raises(InputError, match="in_features = 2"), watch(net):
        net(torch.zeros(2, 1, 7))
    assert hooks(net) == 0


@pytest.mark.parametrize("watch", [FiringRateMeter, SpikeRecorder])
def test_starting_twice_watches_once(watch):
    net = two_layers()
    watcher = watch(net)
    watcher.start()
    watcher.start()
    assert hooks(net) == 2
    watcher.stop()
    watcher.stop()
    assert hooks(net) == 0


def test_starting_again_forgets():
    net = two_layers()
    meter, recorder = FiringRateMeter(net), SpikeRecorder(net)
    with meter, recorder:
        net(HALF)
    with meter, recorder:
        assert meter.rates() == recorder.spikes() == {}
        functional.reset_net(net)
        net(torch.zeros(2, 1, 2))
    assert meter.rates() == {"0": 0.0, "2": 0.0}
    assert recorder.spikes()["0"].shape == (2, 2)


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_recorder_keeps_the_spikes_of_one_sample_over_all_calls(step_mode):
    net = two_layers(step_mode)
    x_seq = torch.zeros(8, 3, 2)
    x_seq[:, 1] = torch.tensor([0.5, 0.25])
    with SpikeRecorder(net, sample=1) as recorder:
        run(net, x_seq[:3])
        run(net, x_seq[3:])
    spikes = recorder.spikes()
    assert spikes["0"][:, 0].tolist() == [0, 1] * 4
    assert spikes["0"][:, 1].tolist() == [0, 0, 0, 1] * 2
    with SpikeRecorder(net, sample=0) as recorder:
        run(net, x_seq)
    assert not any(s.any() for s in recorder.spikes().values())


def test_recorder_flattens_maps_and_takes_neurons_without_features():
    net = nn.Sequential(IFNode(step_mode="m"))
    for shape, expected in (((4, 2, 3, 5, 6), (4, 90)), ((4, 2), (4, 1))):
        with SpikeRecorder(net, sample=1) as recorder:
            net(torch.ones(shape))
        assert recorder.spikes()["0"].shape == expected
        assert recorder.spikes()["0"].all()
        functional.reset_net(net)


def test_recorded_spikes_hold_no_graph():
    net = two_layers()
    with SpikeRecorder(net) as recorder:
        net(HALF.clone().requires_grad_())
    assert not any(spikes.requires_grad for spikes in recorder.spikes().values())


def test_neurons_inside_a_stepping_container_are_recorded_over_time():
    net = nn.Sequential(layers.MultiStepContainer(IFNode()))
    with SpikeRecorder(net) as recorder, FiringRateMeter(net) as meter:
        net(torch.full((4, 2, 3), 0.5))
    assert recorder.spikes()["0.0"].tolist() == [[0.0] * 3, [1.0] * 3] * 2
    assert meter.rates() == {"0.0": 0.5}


def test_layers_are_named_as_in_the_network():
    net = SpikingMLP(4, 2, hidden=(3,))
    with FiringRateMeter(net) as meter:
        net(torch.ones(2, 1, 4))
    assert list(meter.rates()) == [name for name, _ in functional.named_neurons(net)] == ["head.2", "head.4"]


# ------------------------------------------------------------------ means


def test_weighted_mean_counts_each_value_as_often_as_its_weight():
    mean = WeightedMean()
    mean.update(torch.tensor(2.0), 3)
    mean.update(torch.tensor(5.0, requires_grad=True))
    assert mean.compute().item() == mean.so_far() == 11 / 4
    assert not mean.compute().requires_grad
    mean.reset()
    mean.update(torch.tensor(7.0))
    assert mean.compute().item() == 7


def test_weighted_mean_of_many_values_does_not_drift():
    mean, value = WeightedMean(), torch.tensor(0.1)
    for _ in range(3000):
        mean.update(value, 1000)
    assert mean.compute().item() == pytest.approx(float(value), rel=1e-12)
    mean.to(torch.bfloat16)
    assert mean.so_far() == pytest.approx(float(value), rel=1e-12)


def test_weighted_mean_keeps_nan():
    mean = WeightedMean()
    assert math.isnan(mean.so_far())
    mean.update(torch.tensor(1.0), 2)
    mean.update(torch.tensor(math.nan), 2)
    mean.update(torch.tensor(1.0, dtype=torch.bfloat16), 2)
    assert math.isnan(mean.compute())


# ------------------------------------------------------------------ accuracies


@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_accuracy_is_that_of_torchmetrics(top_k):
    ours = Accuracy(top_k)
    theirs = MulticlassAccuracy(7, top_k=top_k, average="micro")
    generator = torch.Generator().manual_seed(top_k)
    for n in (5, 1, 32):
        scores = torch.randint(0, 4, (n, 7), generator=generator).float()  # rates: many are equal
        classes = torch.randint(0, 7, (n,), generator=generator)
        ours.update(scores, classes)
        theirs.update(scores, classes)
    assert 0 < float(ours.compute()) < 1
    assert ours.compute().item() == pytest.approx(float(theirs.compute()), rel=1e-6)
    ours.reset()
    ours.update(torch.eye(7), torch.arange(7))
    assert ours.compute().item() == 1
    assert ours.update_count == 1


def test_accuracy_without_any_sample_is_nan():
    with pytest.warns(UserWarning, match="compute"):
        assert math.isnan(Accuracy().compute())


def test_accuracy_pickles_in_the_middle_and_refuses_an_impossible_k():
    accuracy = Accuracy(2)
    accuracy.update(torch.eye(3), torch.tensor([0, 1, 2]))
    again = pickle.loads(pickle.dumps(accuracy))
    again.update(torch.tensor([[0.3, 0.2, 0.1]]), torch.tensor([2]))
    assert again.compute().item() == 3 / 4
    assert accuracy.compute().item() == 1
    with pytest.raises(ConfigError, match=r"Accuracy\(top_k=0\): expected at least 1"):
        Accuracy(0)
    with pytest.raises(InputError, match=r"Accuracy\(top_k=4\): the scores \[2, 3\] are of fewer classes"):
        Accuracy(4).update(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_sums_of_firing_name_every_layer_run_or_not():
    net = two_layers()
    meter = FiringRateMeter(net)
    assert {name: (float(total), count) for name, (total, count) in meter.sums().items()} == {"0": (0, 0), "2": (0, 0)}
    assert meter.rates() == {}
    with meter:
        net(HALF)
    assert {name: (float(total), count) for name, (total, count) in meter.sums().items()} == {
        "0": (24, 48),
        "2": (12, 48),
    }
