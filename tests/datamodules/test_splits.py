"""Splits: shares, seeds, no leaks, written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jellyfit.datamodules.splits import saved_split, split_by_class, split_by_group
from jellyfit.errors import ConfigError, DataError

LABELS = [i % 3 for i in range(100)]
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_class_has_its_share_in_every_part(shuffle: bool) -> None:
    parts = split_by_class(LABELS, SHARES, seed=3, shuffle=shuffle)
    assert sorted(sum(parts.values(), [])) == list(range(100))
    for label in range(3):
        counts = {name: sum(LABELS[i] == label for i in indices) for name, indices in parts.items()}
        assert counts["val"] == counts["test"] == 3
    if not shuffle:
        assert max(i for i in parts["train"] if LABELS[i] == 0) < min(i for i in parts["val"] if LABELS[i] == 0)


def test_the_seed_alone_decides() -> None:
    assert split_by_class(LABELS, SHARES, seed=1) == split_by_class(LABELS, SHARES, seed=1)
    assert split_by_class(LABELS, SHARES, seed=1) != split_by_class(LABELS, SHARES, seed=2)
    assert split_by_group(LABELS, {"train": 0.5, "test": 0.5}, 1) == split_by_group(
        LABELS, {"train": 0.5, "test": 0.5}, 1
    )


def test_groups_are_never_divided_and_no_part_is_empty() -> None:
    groups = [f"user{i % 11}" for i in range(200)]
    for seed in range(5):
        parts = split_by_group(groups, SHARES, seed)
        members = {name: {groups[i] for i in indices} for name, indices in parts.items()}
        assert all(members.values())
        assert (
            not members["train"] & members["val"]
            | members["train"] & members["test"]
            | members["val"] & members["test"]
        )
        assert sorted(sum(parts.values(), [])) == list(range(200))


@pytest.mark.parametrize("shares", [{"train": 0.5}, {"train": 1.5, "test": -0.5}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        split_by_class(LABELS, shares)


def test_more_parts_than_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 groups"):
        split_by_group(["a", "b"], SHARES)


def test_a_split_is_written_down_and_must_stay_the_same(tmp_path: Path) -> None:
    ids = [f"s{i}" for i in range(6)]
    parts = {"train": [0, 1, 2, 3], "test": [4, 5]}
    chosen = saved_split(tmp_path, "seed-0", ids, parts)
    assert chosen["test"] == ["s4", "s5"]
    assert json.loads((tmp_path / "seed-0.json").read_text())["train"] == ["s0", "s1", "s2", "s3"]
    assert saved_split(tmp_path, "seed-0", ids, parts) == chosen
    with pytest.raises(DataError, match="another split"):
        saved_split(tmp_path, "seed-0", ids, {"train": [0, 1, 2, 4], "test": [3, 5]})
