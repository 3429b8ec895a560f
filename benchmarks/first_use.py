"""Seconds of a neuron's first forward and backward in a fresh process; ``neurons.py`` runs this with its name."""

import json
import sys
import time

moments = {"start": time.perf_counter()}
import torch  # noqa: E402

moments["import torch"] = time.perf_counter()
import jellyfit.neurons  # noqa: E402, F401

moments["import jellyfit"] = time.perf_counter()
import peers  # noqa: E402

if __name__ == "__main__":
    moments["import the rest"] = time.perf_counter()
    runner = peers.ours(peers.main_neuron(sys.argv[1]))
    x, grad = torch.randn(4, 1, 256, requires_grad=True), torch.randn(4, 1, 256)
    torch.autograd.grad(x.sigmoid(), x, grad)
    moments["first backward of PyTorch"] = time.perf_counter()
    for which in ("first", "second"):
        spikes = runner.run(x)
        moments[f"{which} forward"] = time.perf_counter()
        torch.autograd.grad(spikes, (x, *runner.params), grad)
        moments[f"{which} backward"] = time.perf_counter()
    names, times = list(moments), list(moments.values())
    print(json.dumps({name: times[i + 1] - times[i] for i, name in enumerate(names[1:])}))
