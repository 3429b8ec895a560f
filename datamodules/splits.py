"""Which sample belongs to which part: official lists, or drawn by seed from labels alone, without leaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit.datamodules.fetch import exclusive, write_json
from jellyfit.errors import ConfigError, DataError

__all__ = ["saved_split", "split_by_class", "split_by_group"]


def split_by_class(
    labels: Sequence[int], fractions: Mapping[str, float], seed: int = 0, shuffle: bool = True
) -> dict[str, list[int]]:
    """Parts in which every class has its share.

    Args:
        labels: class of every sample ``[N]``.
        fractions: share of each part, by name; they sum to 1. Rounding goes to the first part.
        seed: of the draw; the same for the same labels, whatever machine.
        shuffle: ``False`` takes the first samples of a class for the first part, and so on.

    Returns:
        Indices of the samples of each part, ascending.

    Raises:
        ConfigError: fractions that do not sum to 1, or are negative.

    Examples:
        >>> from jellyfit.datamodules import split_by_class
        >>> split_by_class([0, 0, 0, 0, 1, 1, 1, 1], {"train": 0.75, "test": 0.25}, shuffle=False)
        {'train': [0, 1, 2, 4, 5, 6], 'test': [3, 7]}
    """
    _check(fractions)
    parts: dict[str, list[int]] = {name: [] for name in fractions}
    classes = np.asarray(labels)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        if shuffle:
            members = np.random.default_rng([seed, int(label)]).permutation(members)
        _deal(members, fractions, parts)
    return {name: sorted(indices) for name, indices in parts.items()}


def split_off_val(labels: npt.NDArray[Any], val_fraction: float, seed: int) -> dict[str, npt.NDArray[np.int64]]:
    """``"train"`` and ``"val"``: indices ``[N]`` of the samples, every class with its share, see split_by_class."""
    parts = split_by_class(labels.tolist(), {"train": 1 - val_fraction, "val": val_fraction}, seed)
    return {name: np.array(indices, dtype=np.int64) for name, indices in parts.items()}


def counted(part: str, labels: Sequence[int] | npt.NDArray[Any], classes: int, width: int = 7) -> str:
    """A line that says how many samples a part has, in all and of each class."""
    counts = np.bincount(labels, minlength=classes)
    return (
        f"  {part:5} {len(labels):{width},} samples, {counts.min():,} to {counts.max():,} of each of {classes} classes"
    )


def check_val_fraction(val_fraction: float) -> float:
    """A share of the training samples that validates, if it is one."""
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"data.init_args.val_fraction={val_fraction}: expected 0 or more, and less than 1.")
    return val_fraction


def split_by_group(groups: Sequence[Hashable], fractions: Mapping[str, float], seed: int = 0) -> dict[str, list[int]]:
    """Parts that have no group (a person, a recording) in common.

    Args:
        groups: group of every sample ``[N]``.
        fractions: share of the groups that each part gets, by name; they sum to 1.
        seed: of the draw.

    Returns:
        Indices of the samples of each part, ascending.

    Raises:
        ConfigError: see :func:`split_by_class`; or fewer groups than parts.

    Examples:
        >>> from jellyfit.datamodules import split_by_group
        >>> parts = split_by_group(["ann", "bob", "ann", "eve", "bob"], {"train": 0.6, "test": 0.4})
        >>> sorted(parts["train"] + parts["test"])
        [0, 1, 2, 3, 4]
    """
    _check(fractions)
    names = sorted(set(groups), key=str)
    if len(names) < sum(share > 0 for share in fractions.values()):
        raise ConfigError(f"{len(names)} groups cannot fill {len(fractions)} parts.")
    dealt: dict[str, list[int]] = {name: [] for name in fractions}
    _deal(np.random.default_rng(seed).permutation(len(names)), fractions, dealt)
    for name, share in fractions.items():  # rounding must leave no part empty
        if share > 0 and not dealt[name]:
            dealt[name].append(dealt[max(dealt, key=lambda other: len(dealt[other]))].pop())
    place = {names[i]: part for part, indices in dealt.items() for i in indices}
    return {part: [i for i, group in enumerate(groups) if place[group] == part] for part in fractions}


def _check(fractions: Mapping[str, float]) -> None:
    if any(share < 0 for share in fractions.values()) or abs(sum(fractions.values()) - 1.0) > 1e-6:
        raise ConfigError(f"the shares of a split must be 0 or more and sum to 1; got {dict(fractions)}.")


def _deal(members: npt.NDArray[Any], fractions: Mapping[str, float], parts: dict[str, list[int]]) -> None:
    names = list(fractions)
    counts = [int(fractions[name] * len(members) + 1e-9) for name in names]
    counts[0] += len(members) - sum(counts)
    begin = 0
    for name, count in zip(names, counts, strict=True):
        parts[name] += members[begin : begin + count].tolist()
        begin += count


def saved_split(
    folder: Path, name: str, ids: Sequence[str], parts: Mapping[str, Sequence[int]]
) -> dict[str, list[str]]:
    """Write a split down, so that it can be read, shared and used again; if it was, it must be the same.

    Args:
        folder: where ``NAME.json`` lies: ids of the samples of each part, and their hash.
        name: of the split; holds whatever it depends on (the seed).
        ids: of all samples.
        parts: indices into ``ids`` of each part.

    Returns:
        Ids of each part.

    Raises:
        DataError: the file that is there holds another split: the data or the program has changed since.
    """
    chosen = {part: [ids[i] for i in indices] for part, indices in parts.items()}
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()
    path = folder / f"{name}.json"
    with exclusive(folder, "splits"):
        if path.is_file():
            if json.loads(path.read_text()).get("sha256") != digest:
                raise DataError(
                    f"{path} holds another split than the one that would be made now: samples were added or removed "
                    "since it was written. Delete it to make the new one (results then are of another split)."
                )
        else:
            write_json(path, {"sha256": digest, **chosen})
    return chosen
