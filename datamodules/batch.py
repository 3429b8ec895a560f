"""What a batch is, and the one place where samples become one: ``[N, T, *]`` turns to ``[T, N, *]`` here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jellyfit.errors import InputError
from jellyfit.losses import padding_mask

__all__ = ["Batch", "Sample", "as_batch", "collate_sequences", "collate_stills"]


class Sample(NamedTuple):
    """One sample: values ``x`` (a sequence ``[T, *]`` or a still ``[*]``; tensor or array), its class, its id.

    Where samples are mixed, ``y`` is a vector of the classes' shares, ``[C]`` floats.

    Examples:
        >>> import torch
        >>> from jellyfit.datamodules import Sample
        >>> Sample(torch.zeros(4, 3), 1, "file-7").y
        1
    """

    x: Any
    y: int | Tensor
    id: str


class Batch(NamedTuple):
    """What a task is given.

    Attributes:
        x: sequences ``[T, N, *]``, or stills ``[N, *]``.
        y: class labels ``[N]``, int64; or, where samples are mixed, shares of classes ``[N, C]``, float32.
        ids: name of each sample.
        lengths: valid time steps of each sample ``[N]`` where they differ (the rest is zeros), else ``None``.

    Examples:
        >>> import torch
        >>> from jellyfit.datamodules import Batch
        >>> Batch(torch.zeros(4, 2, 3), torch.tensor([0, 1]), ["a", "b"]).lengths is None
        True
    """

    x: Tensor
    y: Tensor
    ids: list[str] | None = None
    lengths: Tensor | None = None

    def mask(self) -> Tensor:
        """Where samples have not ended: ``[T, N]``, True where a step belongs to the sample, False where it is padding.

        Raises:
            InputError: ``x`` holds stills, or lengths do not fit.
        """
        if self.x.ndim < 3:
            raise InputError(f"a mask over time is of sequences [T, N, *]; x has the shape {list(self.x.shape)}.")
        T, N = self.x.shape[:2]
        full = torch.full((N,), T, device=self.x.device)
        return padding_mask(full if self.lengths is None else self.lengths.to(self.x.device), T)


class Gathered(Sequence[Sample]):
    """Samples ``[T, *]`` that lie side by side already, as they do in a batch.

    Args:
        stacked: ``[T, N, *]``.
        labels: of the N samples.
        ids: their names.

    Examples:
        >>> import torch
        >>> from jellyfit.datamodules import collate_sequences
        >>> from jellyfit.datamodules.batch import Gathered
        >>> samples = Gathered(torch.zeros(4, 2, 3), [0, 1], ["a", "b"])
        >>> samples[1].x.shape, collate_sequences(samples).x is samples.stacked
        (torch.Size([4, 3]), True)
    """

    def __init__(self, stacked: Tensor, labels: Sequence[int], ids: Sequence[str]) -> None:
        self.stacked, self.labels, self.ids = stacked, labels, ids

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return [self[i] for i in range(*n.indices(len(self)))]
        return Sample(self.stacked[:, n], self.labels[n], self.ids[n])


def _labels_and_ids(samples: Sequence[Sample]) -> tuple[Tensor, list[str]]:
    labels = [sample[1] for sample in samples]
    mixed = [label for label in labels if isinstance(label, Tensor)]
    y = torch.stack(mixed) if mixed else torch.tensor(labels, dtype=torch.int64)
    return y, [str(sample[2]) for sample in samples]


def collate_sequences(samples: Sequence[Sample]) -> Batch:
    """Sequences ``[T, *]`` of N samples -> one batch ``[T, N, *]``; shorter ones are padded with zeros at the end.

    Examples:
        >>> import torch
        >>> from jellyfit.datamodules import Sample, collate_sequences
        >>> batch = collate_sequences([Sample(torch.ones(3, 2), 0, "long"), Sample(torch.ones(1, 2), 1, "short")])
        >>> batch.x.shape, batch.lengths.tolist()
        (torch.Size([3, 2, 2]), [3, 1])
    """
    if isinstance(samples, Gathered):
        return Batch(samples.stacked, torch.tensor(samples.labels, dtype=torch.int64), list(samples.ids))
    sequences = [torch.as_tensor(sample[0]) for sample in samples]
    y, ids = _labels_and_ids(samples)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    longest = int(lengths.max())
    if int(lengths.min()) == longest:
        return Batch(torch.stack(sequences, dim=1), y, ids)
    dtype = sequences[0].dtype
    for sequence in sequences[1:]:
        dtype = torch.promote_types(dtype, sequence.dtype)
    x = torch.zeros((longest, len(sequences), *sequences[0].shape[1:]), dtype=dtype)
    for n, sequence in enumerate(sequences):
        x[: len(sequence), n] = sequence
    return Batch(x, y, ids, lengths)


def collate_stills(samples: Sequence[Sample]) -> Batch:
    """Stills ``[*]`` of N samples -> one batch ``[N, *]``.

    Examples:
        >>> import torch
        >>> from jellyfit.datamodules import Sample, collate_stills
        >>> collate_stills([Sample(torch.ones(1, 8, 8), 0, "a"), Sample(torch.ones(1, 8, 8), 1, "b")]).x.shape
        torch.Size([2, 1, 8, 8])
    """
    y, ids = _labels_and_ids(samples)
    return Batch(torch.stack([torch.as_tensor(sample[0]) for sample in samples]), y, ids)


def as_batch(batch: Any) -> Batch:
    """Accept what other datamodules give: our :class:`Batch`, ``(x, y)``, or a mapping with the same names.

    Raises:
        InputError: anything else.

    Examples:
        >>> import torch
        >>> from jellyfit.datamodules import as_batch
        >>> as_batch((torch.zeros(4, 2, 3), torch.tensor([0, 1]))).y.tolist()
        [0, 1]
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Mapping) and {"x", "y"} <= set(batch):
        return Batch(batch["x"], batch["y"], batch.get("ids"), batch.get("lengths"))
    if isinstance(batch, (tuple, list)) and 2 <= len(batch) <= 4 and isinstance(batch[0], Tensor):
        return Batch(*batch)
    raise InputError(
        f"a batch is (x, y), jellyfit.datamodules.Batch(x, y, ids, lengths) or a mapping with these names; got "
        f"{type(batch).__name__}" + (f" of length {len(batch)}" if isinstance(batch, (tuple, list)) else "") + "."
    )
