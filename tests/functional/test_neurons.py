import threading

import pytest
import torch
from torch import nn

from jellyfit import functional, neurons, surrogates
from jellyfit.errors import InputError

MULTI = {
    "if_multi_step": ("IFNode", 1, ()),
    "lif_multi_step": ("LIFNode", 1, ()),
    "plif_multi_step": ("ParametricLIFNode", 1, (torch.tensor(0.3),)),
    "qif_multi_step": ("QIFNode", 1, ()),
    "eif_multi_step": ("EIFNode", 1, ()),
    "izhikevich_multi_step": ("IzhikevichNode", 2, ()),
}
each = pytest.mark.parametrize("name", MULTI)
ATAN = surrogates.ATan()


def call(name, x_seq, **options):
    function, (_, states, more) = getattr(functional, name), MULTI[name]
    return function(x_seq, *([0.0] * states), *more, **options)


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.4


@each
def test_the_same_call_gives_the_same_result_twice(name):
    x_seq = draw(4, 2, 3)
    first, second = call(name, x_seq), call(name, x_seq)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 3), (4, 2, 3), (3, 0, 3), (2, 1)], ids=str)
def test_every_dtype_and_shape(name, dtype, shape):
    spikes, v, *_ = call(name, draw(*shape).to(dtype), surrogate_function=None)
    assert (spikes.shape, spikes.dtype) == (shape, dtype)
    assert (v.shape, v.dtype) == (shape[1:], torch.promote_types(dtype, torch.float32))


@each
def test_chunks_joined_by_the_state_are_the_whole_sequence(name):
    x_seq = draw(6, 2, 3)
    function, (_, states, more) = getattr(functional, name), MULTI[name]
    whole = call(name, x_seq)
    state, spikes = [0.0] * states, []
    for part in x_seq.split([1, 3, 2]):
        out = function(part, *state, *more)
        spikes.append(out[0])
        state = list(out[1 : 1 + states])
    torch.testing.assert_close(torch.cat(spikes), whole[0], rtol=0, atol=0)
    torch.testing.assert_close(state, list(whole[1 : 1 + states]), rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in MULTI if name != "izhikevich_multi_step"])
def test_all_potentials_end_with_the_last(name):
    spikes, v, v_seq = call(name, draw(4, 2, 3), store_v_seq=True)
    assert v_seq.shape == spikes.shape and torch.equal(v_seq[-1], v)
    assert call(name, draw(4, 2, 3))[2] is None


def test_all_states_of_izhikevich_end_with_the_last():
    x_seq = 3.0 * draw(5, 2, 3)
    spikes, v, w, v_seq, w_seq = functional.izhikevich_multi_step(x_seq, 0.0, 0.0, store_state_seq=True)
    plain = functional.izhikevich_multi_step(x_seq, 0.0, 0.0)
    assert plain[3:] == (None, None) and spikes.any()
    for mine, other in ((spikes, plain[0]), (v, plain[1]), (w, plain[2]), (v_seq[-1], v), (w_seq[-1], w)):
        assert torch.equal(mine, other)


def test_numbers_are_those_of_the_neuron():
    x_seq, v = draw(5, 2, 3), 0.3 * draw(2, 3)
    node = neurons.LIFNode(tau=3.0, decay_input=False, v_reset=None, step_mode="m")
    node.v = v
    spikes, last, _ = functional.lif_multi_step(x_seq, v, tau=3.0, decay_input=False, v_reset=None)
    assert torch.equal(spikes, node(x_seq)) and torch.equal(last, node.v)


def test_one_step_is_a_sequence_of_one():
    x, v = draw(2, 3), 0.3 * draw(2, 3)
    sequence = functional.lif_multi_step(x.unsqueeze(0), v, 3.0, False)
    spike, after = functional.lif_step(x, v, 3.0, False, 1.0, 0.0, None)
    assert torch.equal(spike, sequence[0][0]) and torch.equal(after, sequence[1])


def test_gradients_reach_input_state_and_tensor_parameters():
    x_seq, v = draw(4, 2, 3).requires_grad_(), torch.full((2, 3), 0.2, requires_grad=True)
    tau, threshold = torch.full((3,), 2.5, requires_grad=True), nn.Parameter(torch.tensor(0.9))
    options = {"tau": tau * 1.0, "v_threshold": threshold, "surrogate_function": surrogates.ATan()}  # tau: no leaf
    spikes, last, _ = functional.lif_multi_step(x_seq, v, **options)
    (spikes.sum() + last.sum()).backward()
    found = [tensor.grad for tensor in (x_seq, v, tau, threshold)]
    node_tau, node_threshold = nn.Parameter(tau.detach()), nn.Parameter(threshold.detach())
    node = neurons.LIFNode(node_tau, v_threshold=node_threshold, surrogate_function=surrogates.ATan(), step_mode="m")
    x_again, v_again = x_seq.detach().requires_grad_(), v.detach().requires_grad_()
    node.v = v_again
    (node(x_again).sum() + node.v.sum()).backward()
    expected = [tensor.grad for tensor in (x_again, v_again, node_tau, node_threshold)]
    torch.testing.assert_close(found, expected)


def test_a_tensor_is_used_anew_in_every_call_and_not_kept():
    x_seq = torch.full((1, 1, 1), 1.0)
    assert functional.if_multi_step(x_seq, 0.0, torch.tensor(0.5))[0].item() == 1.0
    assert functional.if_multi_step(x_seq, 0.0, torch.tensor(1.5))[0].item() == 0.0
    assert functional.if_multi_step(x_seq, 0.0)[0].item() == 1.0
    for w, spikes in ((10.0, 1.0), (-10.0, 0.0)):
        assert functional.plif_multi_step(x_seq * 1.1, 0.0, torch.tensor(w))[0].item() == spikes


def test_backward_is_possible_twice_in_a_row():
    weight = nn.Parameter(torch.tensor(0.3))
    for _ in range(2):
        functional.plif_multi_step(draw(3, 2, 3), 0.0, weight)[1].sum().backward()
    assert weight.grad is not None


def test_threads_do_not_disturb_each_other():
    x_seq = draw(4, 2, 300)
    expected = functional.lif_multi_step(x_seq, 0.0)[0]
    wrong = []

    def work(scale):
        for _ in range(20):
            spikes = functional.lif_multi_step(x_seq * scale, 0.0)[0]
            if scale == 1.0 and not torch.equal(spikes, expected):
                wrong.append(scale)

    threads = [threading.Thread(target=work, args=(scale,)) for scale in (1.0, 2.0, 1.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@each
def test_what_makes_no_sense_is_refused(name):
    with pytest.raises(InputError, match=rf"{name}: expected a sequence \[T, N, \*\] with T >= 1; got shape \[0, 2\]"):
        call(name, torch.zeros(0, 2))
    with pytest.raises(InputError, match=f"{name}: got input of torch.int64"):
        call(name, torch.zeros(2, 2, dtype=torch.int64))
    _, states, more = MULTI[name]
    with pytest.raises(InputError, match=rf"{name}: the state v has shape \[5\]; expected .* \[2, 3\], or a number"):
        getattr(functional, name)(draw(4, 2, 3), torch.zeros(5), *([0.0] * (states - 1)), *more)
    with pytest.raises(InputError, match="v_threshold"):
        call(name, draw(4, 2, 3), v_threshold=float("nan"))


def test_a_tensor_parameter_is_checked_like_a_number():
    for tau in (0.5, torch.tensor(0.5)):
        with pytest.raises(InputError, match=r"LIFNode\(tau=.* above 1"):
            functional.lif_multi_step(draw(4, 2, 3), 0.0, tau)
    with pytest.raises(InputError, match=r"tau has shape \[7\], which does not broadcast"):
        functional.lif_multi_step(draw(4, 2, 3), 0.0, torch.full((7,), 2.0))
    assert functional.lif_multi_step(draw(4, 2, 3), 0.0)[0].shape == (4, 2, 3)  # an error leaves nothing behind


def test_kernels_are_traced_once_for_a_set_of_arguments():
    from jellyfit.functional import neuron

    x_seq, before = draw(4, 2, 3), neuron._node.cache_info()
    for tau in (7.5, 7.5, torch.tensor(3.0), torch.tensor(4.0)):
        functional.lif_multi_step(x_seq, 0.0, tau)
    after = neuron._node.cache_info()
    assert (after.misses - before.misses) + (after.hits - before.hits) == 4
    assert after.misses - before.misses <= 2


@pytest.mark.parametrize("k", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(k):
    with pytest.raises(InputError, match=r"klif_step\(k=.* above 0"):
        functional.klif_step(draw(2, 3), 0.0, torch.tensor(k), 2.0, True, False, 1.0, 0.0, None)


def test_transforms_of_functions_go_through():
    x_seq = draw(4, 2, 3)

    def loss(x_seq, w):
        spikes, v, _ = functional.plif_multi_step(x_seq, 0.1, w, surrogate_function=ATAN)
        return spikes.sum() + v.sum()

    w = torch.tensor(0.3)
    found = torch.func.grad(loss, argnums=(0, 1))(x_seq, w)
    sources = x_seq.clone().requires_grad_(), w.clone().requires_grad_()
    torch.testing.assert_close(found, torch.autograd.grad(loss(*sources), sources))
    samples = torch.func.vmap(lambda x: functional.lif_multi_step(x, 0.0)[0], in_dims=1, out_dims=1)(x_seq)
    assert torch.equal(samples, functional.lif_multi_step(x_seq, 0.0)[0])
