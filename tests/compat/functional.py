"""Rows of functional."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit import functional, layers, neurons, surrogates
from jellyfit.errors import InputError
from tests.compat.rows import Row, close, peer


def theirs(name: str) -> Any:
    return getattr(peer("functional"), name)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def networks() -> tuple[nn.Sequential, nn.Sequential]:
    """The same network of both libraries, with modules nested."""
    ours = nn.Sequential(layers.Linear(3, 4), nn.Sequential(neurons.LIFNode(backend="torch"), nn.Identity()))
    layer, neuron = peer("layer"), peer("neuron")
    other = nn.Sequential(layer.Linear(3, 4), nn.Sequential(neuron.LIFNode(), nn.Identity()))
    other.load_state_dict(ours.state_dict())
    return ours, other


# ---------------------------------------------------------------- networks


def check_reset() -> None:
    ours, other = networks()
    x = random(2, 3)
    first = ours(x), ours(x)
    for expected in first:
        close(expected, other(x))
    functional.reset_net(ours)
    theirs("reset_net")(other)
    close(ours(x), first[0])
    close(other(x), first[0])


def check_detach() -> None:
    ours, other = networks()
    for net, detach in ((ours, functional.detach_net), (other, theirs("detach_net"))):
        net(random(2, 3))
        before = net[1][0].v
        assert before.requires_grad
        detach(net)
        assert torch.equal(net[1][0].v, before) and not net[1][0].v.requires_grad


def check_step_mode() -> None:
    ours, other = networks()
    functional.set_step_mode(ours, "m")
    theirs("set_step_mode")(other, "m")
    assert [net[1][0].step_mode for net in (ours, other)] == ["m", "m"]
    close(ours(random(5, 2, 3)), other(random(5, 2, 3)))


def check_collect() -> None:
    ours, other = networks()
    collected = functional.collect_reset_modules(ours), theirs("collect_reset_modules")(other)
    assert [[type(module).__name__ for module in modules] for modules in collected] == [["LIFNode"]] * 2
    for net, modules, reset in zip(
        (ours, other), collected, (functional.reset_collected_modules, theirs("reset_collected_modules")), strict=True
    ):
        net(random(2, 3))
        reset(modules)
        assert net[1][0].v == 0.0


def check_kaiming() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(1, 2, 3), nn.Conv1d(1, 2, 3), nn.BatchNorm1d(3))
    torch.manual_seed(0)
    functional.kaiming_normal_conv_linear_weight(net)
    ours = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(0)
    theirs("kaiming_normal_conv_linear_weight")(net)
    assert all(torch.equal(value, ours[name]) for name, value in net.state_dict().items())


def check_margin() -> None:
    labels = torch.eye(3)[[0, 2]]
    ours, other = neurons.LIFNode(), peer("neuron").LIFNode()
    for training in (True, False):
        functional.set_threshold_margin(ours.train(training), labels, 0.8, 0.95, 1.2)
        theirs("set_threshold_margin")(other.train(training), labels, 0.8, 0.95, 1.2)
        assert torch.equal(torch.as_tensor(ours.v_threshold), torch.as_tensor(other.v_threshold))
        x = torch.full((2, 3), 2.0)
        if training:
            assert ours(x).tolist() == [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
            with pytest.raises(RuntimeError, match="threshold"):
                other(x)
            functional.reset_net(ours)
        else:
            close(ours(x), other(x))


# ---------------------------------------------------------------- sequences


def check_multi_step() -> None:
    ours, other = networks()
    x_seq = random(5, 2, 3)
    close(functional.multi_step_forward(x_seq, ours), theirs("multi_step_forward")(x_seq, other))
    for kind in (list, tuple):
        functional.reset_net(ours)
        theirs("reset_net")(other)
        close(functional.multi_step_forward(x_seq, kind(ours)), theirs("multi_step_forward")(x_seq, kind(other)))


def check_seq_to_ann() -> None:
    x_seq, linear = random(5, 2, 3), nn.Linear(3, 4)
    for modules in (linear, [linear, nn.ReLU()], nn.Sequential(linear, nn.ReLU())):
        close(functional.seq_to_ann_forward(x_seq, modules), theirs("seq_to_ann_forward")(x_seq, modules))  # type: ignore[arg-type]
    pair = theirs("seq_to_ann_forward")((x_seq, x_seq), lambda a, b: a + b)
    close(functional.seq_to_ann_forward(torch.cat([x_seq, x_seq], -1), lambda x: x[:, :3] + x[:, 3:]), pair)


def check_time_last() -> None:
    x_seq = random(2, 3, 5)
    ours, other = networks()
    close(functional.t_last_multi_step_forward(x_seq, ours), theirs("t_last_multi_step_forward")(x_seq, other))


def check_time_last_ann() -> None:
    x_seq, linear = random(2, 3, 5), nn.Linear(3, 4)
    close(functional.t_last_seq_to_ann_forward(x_seq, linear), theirs("t_last_seq_to_ann_forward")(x_seq, linear))


def check_chunks() -> None:
    x_seq = random(7, 2, 3)
    for size in (1, 3, 7, 9):
        ours, other = networks()
        functional.set_step_mode(ours, "m")
        theirs("set_step_mode")(other, "m")
        y = functional.chunk_multi_step_forward(size, x_seq, ours)
        close(y, theirs("chunk_multi_step_forward")(size, x_seq, other))


def check_delay() -> None:
    x_seq = random(5, 2)
    for steps in (0, 1, 4, 5, 9):
        assert torch.equal(functional.delay(x_seq, steps), theirs("delay")(x_seq, steps))
    with pytest.raises(InputError):
        functional.delay(x_seq, -1)
    assert theirs("delay")(x_seq, -1)[:-1].eq(0).all()


def check_delay_step() -> None:
    for steps in (0, 1, 3):
        ours: tuple[Tensor, ...] = ()
        other: tuple[Tensor, ...] = ()
        for x in random(6, 2):
            y, ours = functional.delay_step(x, ours, steps)
            expected, other = theirs("delay_step")(x, other, steps)
            assert torch.equal(y, expected) and len(ours) == len(other)


# ---------------------------------------------------------------- losses and labels


def check_first_spike() -> None:
    spikes = (random(3, 4, 9) > 0.5).float()
    assert torch.equal(functional.first_spike_index(spikes), theirs("first_spike_index")(spikes))


KERNELS: list[tuple[Any, tuple[float, ...]]] = [
    ("linear", ()),
    ("sigmoid", (0.5,)),
    ("polynomial", (2.0,)),
    ("gaussian", (1.5,)),
]


def check_kernels() -> None:
    x, y = random(4, 6, dtype=torch.float64), random(3, 6, seed=1, dtype=torch.float64)
    square = random(4, 6, seed=1, dtype=torch.float64)
    for kernel, args in KERNELS:
        close(
            functional.kernel_dot_product(x, square, kernel, *args),
            theirs("kernel_dot_product")(x, square, kernel, *args),
            kernel,
        )
        assert functional.kernel_dot_product(x, y, kernel, *args).shape == (4, 3)


def check_similar() -> None:
    spikes, classes = (random(5, 4, 3) > 0).float(), torch.tensor([0, 1, 0, 2, 1])
    one_hot = torch.eye(3)[classes]
    for kernel, args in KERNELS:
        for loss in ("mse", "l1", "bce"):
            if loss == "bce" and kernel in ("polynomial", "linear"):
                continue
            found = []
            for function in (functional.spike_similar_loss, theirs("spike_similar_loss")):
                x = spikes.clone().requires_grad_()
                value = function(x, one_hot, kernel, loss, *args)
                value.backward()
                found.append((value.detach(), x.grad))
            for mine, other in zip(*found, strict=True):
                close(mine, other, f"{kernel} {loss}")
            mine = functional.spike_similar_loss(spikes, classes, kernel, loss, *args)  # type: ignore[arg-type]
            close(mine, found[0][0], "labels as numbers")
    with pytest.raises(RuntimeError):
        theirs("spike_similar_loss")(spikes, classes)


def check_redundant() -> None:
    labels = torch.tensor([2, 0, 1])
    assert torch.equal(functional.redundant_one_hot(labels, 3, 4), theirs("redundant_one_hot")(labels, 3, 4))


def check_tet() -> None:
    y_seq, target = random(4, 5, 3), torch.tensor([0, 2, 1, 1, 0])
    close(
        functional.temporal_efficient_training_cross_entropy(y_seq, target),
        theirs("temporal_efficient_training_cross_entropy")(y_seq, target),
    )


# ---------------------------------------------------------------- neurons

STATES = {"izhikevich": 2, "clif": 2, "cuba": 2, "raf": 2}


def outcome(function: Any, x: Tensor, states: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Outputs, and gradients of a weighted sum of all of them by everything that may have one."""
    sources = [tensor.clone().requires_grad_() for tensor in (x, *states)]
    args = tuple(arg.clone().requires_grad_() if isinstance(arg, Tensor) else arg for arg in args)
    outputs = [output for output in function(*sources, *args, **kwargs) if output is not None]
    weights = [random(*output.shape, seed=i, dtype=output.dtype) for i, output in enumerate(outputs)]
    total = torch.stack([(output * weight).sum() for output, weight in zip(outputs, weights, strict=True)]).sum()
    sources += [arg for arg in args if isinstance(arg, Tensor)]
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, sources, allow_unused=True)]


def agree(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    x = 1.2 * random(*((4, 2, 3) if name.endswith("multi_step") else (2, 3)), dtype=torch.float64) + 0.4
    states = [0.3 * random(2, 3, seed=7 + i, dtype=torch.float64) for i in range(STATES.get(name.split("_")[0], 1))]
    options = dict(kwargs)
    surrogate = options.pop("surrogate", None)

    def arguments(module: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        made = module.ATan()
        named = {"surrogate": made, "counts": module.MultiLevelSpikeCount(4)}
        return (
            tuple(named.get(arg, arg) if isinstance(arg, str) else arg for arg in args),
            {**options, **({"surrogate_function": made} if surrogate else {})},
        )

    mine = outcome(getattr(functional, name), x, states, *arguments(surrogates))
    other = outcome(theirs(name), x, states, *arguments(peer("surrogate")))
    assert len(mine) == len(other)
    for i, (a, b) in enumerate(zip(mine, other, strict=True)):
        assert (a is None) == (b is None), (name, i)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=lambda text, i=i: f"{name} {i}: {text}")


def multi(
    name: str, *options: dict[str, Any], args: tuple[Any, ...] = (), keep: str = "store_v_seq"
) -> Callable[[], None]:
    def check() -> None:
        for kwargs in ({}, {"surrogate": True, "detach_reset": True, keep: True}, *options):
            agree(name, args, kwargs)

    return check


def single(name: str, *args: Any) -> Callable[[], None]:
    def check() -> None:
        agree(name, args, {})
        agree(name, args, {"detach_reset": True})

    return check


def check_integer() -> None:
    agree("ilif_multi_step", (), {})
    agree("ilif_multi_step", (3.0, 0.7, "counts", True, True), {})


def bare(name: str, *args: Any) -> Callable[[], None]:
    return lambda: agree(name, args, {})


def check_scaled() -> None:
    for scale_reset in (False, True):
        single("klif_step", torch.tensor(1.3, dtype=torch.float64), 2.5, True, scale_reset, 0.9, -0.1, "surrogate")()


def check_activated() -> None:
    for threshold_related in (False, True):
        single("liaf_step", 2.5, True, 0.9, -0.1, torch.tanh, threshold_related, "surrogate")()


W = torch.tensor(-0.3, dtype=torch.float64)
LOW_PRECISION = dict.fromkeys(
    ("neuron_storage", "neuron_fwd", "neuron_bwd"), "the arithmetic is at least float32, the input chooses the storage"
)


def check_charge() -> None:
    x, v = random(2, 3), random(2, 3, seed=1)
    for decay_input in (True, False):
        for v_reset in (None, 0.0, -0.2):
            args = (x, v, 3.0, decay_input, v_reset)
            close(functional.lif_charge(*args), theirs("lif_charge")(*args))


def check_voltage_reset() -> None:
    v, spike = random(2, 3), (random(2, 3, seed=1) > 0).float()
    for v_reset in (None, 0.0, -0.2):
        for detach in (False, True):
            found = []
            for function in (functional.voltage_reset, theirs("voltage_reset")):
                sources = v.clone().requires_grad_(), spike.clone().requires_grad_()
                after = function(*sources, 0.7, v_reset, detach)
                grads = torch.autograd.grad(after.square().sum(), sources, allow_unused=True)
                found.append((after.detach(), *grads))
            for mine, other in zip(*found, strict=True):
                assert (mine is None) == (other is None)
                if mine is not None:
                    close(mine, other)


NEURON = "call the neuron: `neurons.{}(...)` keeps the same state in its memories"
LATER = "local learning rules come later"
PACKED = "spikes that are kept for backward are packed by themselves: `kernels.SpikeCompression`"
SPARSE = "`layers.Linear`: sparse products are not faster here"
ABSENT = {
    "activation_aware_if_multi_step": "conversion of ANNs comes later",
    "activation_aware_if_step": "conversion of ANNs comes later",
    "stbif_multi_step": "conversion of ANNs comes later",
    "stbif_step": "conversion of ANNs comes later",
    "bit_pack_spike_dense": PACKED,
    "bit_spike_compress": PACKED,
    "bit_spike_decompress": PACKED,
    "packed_spike_linear": SPARSE,
    "sparse_linear": SPARSE,
    "if_linear": "`layers.Linear` and `neurons.IFNode`; SpikingJelly's runs on CUDA alone",
    "lif_linear": "`layers.Linear` and `neurons.LIFNode`; SpikingJelly's runs on CUDA alone",
    "gated_lif_step": NEURON.format("GatedLIFNode"),
    "masked_psn_step": NEURON.format("MaskedPSN"),
    "sliding_psn_step": NEURON.format("SlidingPSN"),
    "lava_cuba_lif_step": "export to Lava comes later",
    "neunorm_step": "call the layer, which keeps its state: `layers.NeuNorm`",
    "synapse_filter_step": "call the layer, which keeps its state: `layers.SynapseFilter`",
    "neuron_implementation": "`jellyfit doctor` says which kernels can run; `jellyfit kernels show` shows them",
    "invalidate_reset_cache": "nothing is cached: `reset_net` looks at the network as it is",
    "mstdp_linear_step": LATER,
    "mstdpet_linear_step": LATER,
    "mstdpet_reward_step": LATER,
    "stdp_conv1d_step": LATER,
    "stdp_conv2d_step": LATER,
    "stdp_linear_step": LATER,
}

SOFT = {"v_reset": None, "v_threshold": 0.7}
ROWS: list[Row] = [
    Row("chunk_multi_step_forward", "same", check_chunks),
    Row("collect_reset_modules", "same", check_collect),
    Row(
        "delay", "different", check_delay, "the same; a negative delay is an error, not a sequence that comes too early"
    ),
    Row("delay_step", "same", check_delay_step),
    Row("detach_net", "same", check_detach),
    Row("first_spike_index", "same", check_first_spike),
    Row("kaiming_normal_conv_linear_weight", "same", check_kaiming),
    Row("kernel_dot_product", "same", check_kernels),
    Row("lif_charge", "same", check_charge),
    Row("multi_step_forward", "same", check_multi_step),
    Row("redundant_one_hot", "same", check_redundant),
    Row("reset_collected_modules", "same", check_collect),
    Row("reset_net", "same", check_reset),
    Row(
        "seq_to_ann_forward",
        "different",
        check_seq_to_ann,
        "the same for one sequence; SpikingJelly's also takes a tuple of them",
    ),
    Row("set_step_mode", "same", check_step_mode),
    Row(
        "set_threshold_margin",
        "different",
        check_margin,
        "the same thresholds; SpikingJelly 2.0's own neurons cannot run with them",
    ),
    Row("spike_similar_loss", "different", check_similar, "the same; labels may also be class numbers `[N]`"),
    Row("t_last_multi_step_forward", "same", check_time_last),
    Row("t_last_seq_to_ann_forward", "same", check_time_last_ann),
    Row("temporal_efficient_training_cross_entropy", "same", check_tet),
    Row("voltage_reset", "same", check_voltage_reset),
    Row("eif_multi_step", "same", multi("eif_multi_step", {"tau": 3.0, "delta_t": 0.7, "v_reset": -0.2})),
    Row("eif_step", "same", single("eif_step", 2.5, 0.7, 0.6, 0.1, 0.9, -0.1, "surrogate")),
    Row(
        "if_multi_step",
        "different",
        multi("if_multi_step", SOFT),
        "the same numbers",
        arguments=LOW_PRECISION,
    ),
    Row("if_step", "same", single("if_step", 0.9, None, "surrogate")),
    Row(
        "izhikevich_multi_step",
        "same",
        multi("izhikevich_multi_step", {**SOFT, "tau": 3.0, "a": 0.3}, keep="store_state_seq"),
    ),
    Row(
        "izhikevich_step", "same", single("izhikevich_step", 2.5, 0.7, 0.1, 0.6, 3.0, 0.3, 0.2, 0.9, -0.1, "surrogate")
    ),
    Row(
        "lif_multi_step",
        "different",
        multi("lif_multi_step", SOFT, {"tau": 3.0, "decay_input": False, "v_reset": -0.2}),
        "the same numbers",
        arguments=LOW_PRECISION,
    ),
    Row("lif_step", "same", single("lif_step", 2.5, False, 0.9, -0.1, "surrogate")),
    Row(
        "plif_multi_step",
        "different",
        multi("plif_multi_step", SOFT, {"decay_input": False, "v_reset": -0.2}, args=(W,)),
        "the same numbers",
        arguments=LOW_PRECISION,
    ),
    Row("plif_step", "same", single("plif_step", W, False, 0.9, -0.1, "surrogate")),
    Row("qif_multi_step", "same", multi("qif_multi_step", {"tau": 3.0, "a0": 0.7, "v_reset": -0.2})),
    Row("qif_step", "same", single("qif_step", 2.5, 0.7, 0.1, 0.6, 0.9, -0.1, "surrogate")),
    Row("clif_step", "same", bare("clif_step", 2.5, 0.9, "surrogate")),
    Row("cuba_lif_step", "same", single("cuba_lif_step", 0.4, 0.8, 0.9, -0.1, "surrogate")),
    Row("ilif_multi_step", "same", check_integer),
    Row("ilif_step", "same", single("ilif_step", 2.5, 0.7, "counts")),
    Row("klif_step", "same", check_scaled),
    Row("liaf_step", "same", check_activated),
    Row("raf_step", "same", single("raf_step", -0.3, 1.5, 0.9, 0.7, -0.1, "surrogate")),
    Row("ternary_if_step", "same", single("ternary_if_step", 0.9, None, "surrogate")),
    Row("ternary_lif_step", "same", single("ternary_lif_step", 2.5, False, 0.9, -0.1, "surrogate")),
    *(Row(name, "absent", note=note) for name, note in ABSENT.items()),
]
