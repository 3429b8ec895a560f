"""Bytes of the files that tests make, written from the formats' descriptions."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["atis", "write_zip", "zipped"]


def atis(recorded: Sequence[tuple[int, ...]]) -> bytes:
    """Column, row, and 24 bits of which the highest is the polarity, the others the time in µs."""
    return b"".join(bytes((x, y)) + (p << 23 | t).to_bytes(3, "big") for t, x, y, p in recorded)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip archive; a name that ends in a slash is a folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in files.items():
            archive.writestr(name, part)
    return content.getvalue()


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip archive."""
    path.write_bytes(zipped(files))
