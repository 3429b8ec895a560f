import re
import weakref

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.backbones import SpikingMLP
from jellyfit.errors import InputError
from jellyfit.neurons import LIFNode


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(backend="torch", classes=2):
    torch.manual_seed(0)
    net = nn.Sequential(
        layers.Linear(3, 8),
        LIFNode(backend=backend),
        layers.Linear(8, classes),
        LIFNode(v_threshold=0.5, backend=backend),
    )
    functional.set_step_mode(net, "m")
    return net


def gradients(net):
    return [parameter.grad.clone() for parameter in net.parameters()]


# ------------------------------------------------------------------ order of axes


def test_time_first_and_batch_first_undo_each_other():
    x = seeded(4, 5, 3)
    assert torch.equal(functional.batch_first(functional.time_first(x)), x)
    assert torch.equal(functional.time_first(x)[2, 1], x[1, 2])


def test_order_of_axes_is_a_view_unless_asked_otherwise():
    x = seeded(4, 5, 3)
    assert functional.time_first(x).data_ptr() == x.data_ptr()
    assert not functional.time_first(x).is_contiguous()
    assert functional.time_first(x, contiguous=True).is_contiguous()
    assert functional.batch_first(x, contiguous=True).is_contiguous()


@pytest.mark.parametrize("function", [functional.time_first, functional.batch_first])
def test_what_has_no_two_axes_is_refused(function):
    with pytest.raises(InputError, match=re.escape("swap the first two axes; got shape [3]")):
        function(torch.zeros(3))


# ------------------------------------------------------------------ time last, chunks, delay


@pytest.mark.parametrize(
    "function", [functional.t_last_multi_step_forward, functional.t_last_seq_to_ann_forward], ids=lambda f: f.__name__
)
def test_time_last_is_time_first_with_the_axes_moved(function):
    x_seq = seeded(2, 3, 5)
    linear = nn.Linear(3, 4)
    expected = torch.stack([linear(x) for x in x_seq.unbind(-1)], -1)
    torch.testing.assert_close(function(x_seq, linear), expected)
    torch.testing.assert_close(function(x_seq, [linear, nn.ReLU()]), expected.relu())
    with pytest.raises(InputError, match=r"sequence \[N, \*, T\] with T >= 1; got shape \[2, 0\]"):
        function(torch.zeros(2, 0), linear)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_chunks_give_what_one_call_gives(size):
    x_seq = seeded(7, 2, 3)
    expected = network()(x_seq)
    assert torch.equal(functional.chunk_multi_step_forward(size, x_seq, network()), expected)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_chunks_of_no_length_are_refused(size):
    for call in (
        lambda: functional.chunk_multi_step_forward(size, seeded(7, 2, 3), network()),
        lambda: functional.truncated_bptt(network(), seeded(7, 2, 3), lambda y, steps: y.sum(), size),
    ):
        with pytest.raises(InputError, match=f"={size}: expected a whole number of time steps"):
            call()


@pytest.mark.parametrize("steps", [0, 1, 3, 5, 8])
def test_delay_shifts_a_sequence_and_its_gradient(steps):
    x_seq = seeded(5, 2).requires_grad_()
    y_seq = functional.delay(x_seq, steps)
    assert torch.equal(y_seq[:steps], torch.zeros(min(steps, 5), 2))
    assert torch.equal(y_seq[steps:], x_seq[: max(5 - steps, 0)])
    y_seq.sum().backward()
    arrives = (torch.arange(5) < 5 - steps).float()
    assert torch.equal(x_seq.grad, arrives[:, None].expand(5, 2))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_delay_step_by_step_is_the_delay_of_the_sequence(steps):
    x_seq, queue, outputs = seeded(6, 2), (), []
    for x in x_seq:
        y, queue = functional.delay_step(x, queue, steps)
        outputs.append(y)
    assert torch.equal(torch.stack(outputs), functional.delay(x_seq, steps))
    assert len(queue) == steps


@pytest.mark.parametrize("steps", [-1, 1.0, False])
def test_a_delay_that_is_none_is_refused(steps):
    with pytest.raises(InputError, match="0 or more"):
        functional.delay(seeded(5, 2), steps)
    with pytest.raises(InputError, match="0 or more"):
        functional.delay_step(seeded(2), (), steps)


# ------------------------------------------------------------------ truncated back-propagation


def squares(target_seq):
    return lambda y, steps: (y - target_seq[steps]).square().sum()


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_truncated_bptt_in_one_chunk_is_plain_bptt(backend):
    x_seq, target_seq = seeded(6, 4, 3), seeded(6, 4, 2, seed=1)
    plain, net = network(backend), network(backend)
    expected = plain(x_seq)
    (expected - target_seq).square().sum().backward()
    loss, y_seq = functional.truncated_bptt(net, x_seq, squares(target_seq), chunk=6)
    assert torch.equal(y_seq, expected) and not y_seq.requires_grad
    torch.testing.assert_close(loss, (expected.detach() - target_seq).square().sum())
    torch.testing.assert_close(gradients(net), gradients(plain))


@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_truncated_bptt_is_detaching_by_hand(chunk):
    x_seq, target_seq = seeded(10, 4, 3), seeded(10, 4, 2, seed=1)
    by_hand, net = network(), network()
    for start in range(0, 10, chunk):
        steps = slice(start, start + chunk)
        (by_hand(x_seq[steps]) - target_seq[steps]).square().sum().backward()
        functional.detach_net(by_hand)
    loss, y_seq = functional.truncated_bptt(net, x_seq, squares(target_seq), chunk)
    torch.testing.assert_close(gradients(net), gradients(by_hand))
    assert torch.equal(y_seq, network()(x_seq))  # the state goes on: the outputs know nothing of chunks
    assert loss.item() == pytest.approx((y_seq - target_seq).square().sum().item(), rel=1e-5)
    whole = network()
    (whole(x_seq) - target_seq).square().sum().backward()
    assert not torch.allclose(gradients(whole)[0], gradients(net)[0])  # but the gradients do


def test_truncated_bptt_leaves_the_state_detached_to_go_on_from():
    x_seq = seeded(6, 4, 3)
    net = network()
    for part in x_seq.split(3):
        functional.truncated_bptt(net, part, lambda y, steps: y.sum(), chunk=2)
    assert not net[1].v.requires_grad
    whole = network()
    functional.truncated_bptt(whole, x_seq, lambda y, steps: y.sum(), chunk=2)
    assert torch.equal(net[1].v, whole[1].v)


def test_a_backbone_keeps_its_state_between_chunks_and_resets_as_before_afterwards():
    x_seq = seeded(6, 4, 3)
    torch.manual_seed(0)
    net = SpikingMLP(3, 2)
    expected = net(x_seq).detach()
    for _ in range(2):
        _, y_seq = functional.truncated_bptt(net, x_seq, lambda y, steps: y.sum(), chunk=2)
        assert torch.equal(y_seq, expected)
    assert net.carry_state is False
    assert torch.equal(net(x_seq), expected)


def test_a_backbone_resets_as_before_after_an_error_in_the_loss():
    net = SpikingMLP(3, 2)
    with pytest.raises(ZeroDivisionError):
        functional.truncated_bptt(net, seeded(6, 4, 3), lambda y, steps: 1 / 0, chunk=2)
    assert net.carry_state is False


def test_backward_may_be_another():
    x_seq, seen = seeded(6, 4, 3), []

    def backward(loss):
        seen.append(loss.item())
        (3.0 * loss).backward()

    net, plain = network(), network()
    loss, _ = functional.truncated_bptt(net, x_seq, lambda y, steps: y.sum(), 2, backward)
    functional.truncated_bptt(plain, x_seq, lambda y, steps: y.sum(), 2)
    assert len(seen) == 3 and loss.item() == pytest.approx(sum(seen))
    torch.testing.assert_close(gradients(net), [3.0 * gradient for gradient in gradients(plain)])


class Bytes:
    """Counts the bytes that are kept for backward at a time."""

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        kept, size = self.Kept(tensor), tensor.numel() * tensor.element_size()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(kept, self.release, size)
        return kept

    def release(self, size):
        self.now -= size

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda kept: kept.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


def test_memory_of_truncated_bptt_does_not_grow_with_the_sequence():
    most = []
    for T in (20, 400):
        with Bytes() as kept:
            functional.truncated_bptt(network(), seeded(T, 4, 3), lambda y, steps: y.sum(), chunk=10)
        most.append(kept.most)
        assert kept.now == 0
    with Bytes() as kept:
        network()(seeded(400, 4, 3)).sum().backward()
    assert most[1] == most[0] > 0
    assert kept.most > 30 * most[1]
