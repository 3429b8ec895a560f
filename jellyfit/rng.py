"""State of the random number generators, as plain data that a checkpoint can hold; streams; modules that draw."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Drawing", "Stream", "generator_of", "get_rng_state", "seed_of", "seeded_globals", "set_rng_state"]


class Drawing(nn.Module):
    """Mixed in before a module with a ``generator``: its pickles and copies go on with the same random numbers.

    ``torch.Generator`` itself cannot be pickled or copied in every version of torch.

    Attributes:
        generator: source of the random numbers; ``None``: torch's own.

    Examples:
        >>> import copy, torch
        >>> from jellyfit.rng import Drawing
        >>> class Noise(Drawing):
        ...     def forward(self, x):
        ...         return x + torch.rand(x.shape, generator=self.generator)
        >>> noise = Noise()
        >>> noise.generator = torch.Generator().manual_seed(0)
        >>> torch.equal(copy.deepcopy(noise)(torch.zeros(3)), noise(torch.zeros(3)))
        True
    """

    generator: torch.Generator | None = None

    def __getstate__(self) -> dict[str, Any]:
        above = getattr(super(), "__getstate__", None)  # before Python 3.11 there may be none
        state = dict(self.__dict__ if above is None else above())
        if self.generator is not None:
            state["generator"] = (str(self.generator.device), self.generator.get_state())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        saved = state.get("generator")
        if saved is not None:
            device, numbers = saved
            self.generator = torch.Generator(device)
            self.generator.set_state(numbers)


class Stream:
    """Random numbers of one's own, NumPy's and torch's: what the global generators draw after being seeded alike.

    Attributes:
        numpy: ``numpy.random.default_rng([seed, rank])``.
        torch: as ``torch.manual_seed(seed)`` leaves torch's own, on the CPU.

    Args:
        seed: integer, at least 0.
        rank: of the process, default 0.

    Examples:
        >>> import torch
        >>> from jellyfit.rng import Stream
        >>> stream, _ = Stream(7), torch.manual_seed(7)
        >>> with stream.drawn():
        ...     first = torch.nn.Linear(3, 3)
        >>> bool((first.weight == torch.nn.Linear(3, 3).weight).all())
        True
    """

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.numpy = np.random.default_rng([seed, rank])
        self.torch = torch.Generator().manual_seed(seed)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Within, torch's own generator of the CPU draws from this stream."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.torch.get_state())
        try:
            yield
        finally:
            self.torch.set_state(torch.get_rng_state())
            torch.set_rng_state(before)

    def branch(self, rank: int) -> None:
        """Let torch's numbers go on as those of another process: nothing changes where ``rank`` is 0."""
        if rank:
            self.torch.manual_seed(_seed_from(self.torch.get_state(), rank))

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on exactly."""
        return {"numpy": self.numpy.bit_generator.state, "torch": self.torch.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.numpy.bit_generator.state = state["numpy"]
        self.torch.set_state(state["torch"].cpu())

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.numpy, self.torch = np.random.default_rng(), torch.Generator()
        self.load_state_dict(state)


def _seed_from(state: Tensor, rank: int) -> int:
    """A seed for the process ``rank``, of the state that the generators of all processes have."""
    return int(state.sum()) * 1000 + rank


def get_rng_state() -> dict[str, Any]:
    """State of Python's, NumPy's and torch's generators (CPU and every CUDA device).

    Examples:
        >>> from jellyfit.rng import get_rng_state
        >>> sorted(get_rng_state())
        ['cuda', 'numpy', 'python', 'torch']
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 (users' code may use it)
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [str(kind), [int(key) for key in keys], int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any], rank: int = 0) -> None:
    """Go on with ``state``; other ranks than the one that saved it start a stream of their own from it.

    Examples:
        >>> import torch
        >>> from jellyfit.rng import get_rng_state, set_rng_state
        >>> state = get_rng_state()
        >>> first = torch.rand(3)
        >>> set_rng_state(state)
        >>> bool((torch.rand(3) == first).all())
        True
    """
    if rank:
        seed = _seed_from(state["torch"], rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        return
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def generator_of(seed: int, *place: int) -> np.random.Generator:
    """A generator that depends on a seed and a place alone, such as epoch and sample; every place has its own stream.

    Args:
        seed: integer, at least 0.
        place: integers, at least 0. Places of different length differ too.

    Examples:
        >>> from jellyfit.rng import generator_of
        >>> draws = [int(generator_of(0, *place).integers(1000)) for place in ((0, 1), (1, 0), (0, 1))]
        >>> draws[0] == draws[2] != draws[1]
        True
    """
    # not default_rng([seed, *place]), to which zeros at the end make no difference
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def seed_of(*place: int) -> int:
    """A seed of 32 bits that depends on a place alone, such as seed, environment and episode, for code that wants one.

    Args:
        place: integers, at least 0. Zeros at its end make no difference.

    Examples:
        >>> from jellyfit.rng import seed_of
        >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(place).generate_state(1)[0])


@contextmanager
def seeded_globals(rng: np.random.Generator) -> Iterator[None]:
    """Within, the global generators (Python's, NumPy's, torch's of the CPU) draw what ``rng`` says; then as before.

    For code that draws from them and cannot be told otherwise.

    Args:
        rng: gives the seed.

    Examples:
        >>> import random
        >>> from jellyfit.rng import generator_of, seeded_globals
        >>> draws = []
        >>> for _ in range(2):
        ...     with seeded_globals(generator_of(0, 7)):
        ...         draws.append(random.random())
        >>> draws[0] == draws[1]
        True
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (users' code may use it)
    seed = int(rng.integers(2**32))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
