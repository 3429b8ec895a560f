"""AEDAT 4, what DV writes, read through the package ``aedat``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from jellyfit.errors import ConfigError, DataError, InputError
from jellyfit.events.array import EventArray, EventWarning, make_events
from jellyfit.events.formats.base import Format, Recording, Source

__all__ = ["Aedat4"]


class Aedat4(Format):
    """AEDAT 4: compressed packets of several streams, described by a header. Times are those of the file, in µs.

    It is read through the package aedat: ``pip install 'jellyfit[sensors]'``. Of a file with the streams of several
    cameras ``sample`` chooses one.
    """

    name = "aedat4"
    title = "AEDAT 4"
    suffixes = (".aedat4",)

    def matches(self, head: bytes, suffix: str) -> bool:
        return head.startswith(b"#!AER-DAT4.")

    def read(self, source: Source) -> Recording:
        try:
            import aedat
        except ImportError as error:
            raise ConfigError(
                f"{source.path} is in AEDAT 4, which is read through the package aedat: "
                "pip install 'jellyfit[sensors]'."
            ) from error
        try:
            decoder = aedat.Decoder(str(source.path))
        except Exception as error:  # it has no class of errors of its own
            raise _damaged(source, error) from error
        streams = {key: value for key, value in decoder.id_to_stream().items() if value["type"] == "events"}
        if not streams:
            raise DataError(f"{source.path} has no stream of events. Record one in DV.")
        if len(streams) == 1:
            source.refuse_sample()
        elif source.sample is None or not 0 <= source.sample < len(streams):
            raise InputError(
                f"{source.path} holds the events of {len(streams)} cameras; give sample from 0 to {len(streams) - 1}, "
                f"got {source.sample}."
            )
        stream = sorted(streams)[source.sample or 0]
        size = (int(streams[stream]["height"]), int(streams[stream]["width"]))
        return Recording(_chunks(source, decoder, stream), size)


def _chunks(source: Source, decoder: Any, stream: int) -> Iterator[EventArray]:
    while True:
        try:
            packet = next(decoder, None)
        except Exception as error:
            if source.truncated == "error":
                raise _damaged(source, error) from error
            warnings.warn(f"{_damaged(source, error)} The events before that were read.", EventWarning, stacklevel=2)
            break
        if packet is None:
            break
        if packet["stream_id"] == stream and "events" in packet:
            events = packet["events"]
            yield make_events(events["t"], events["x"], events["y"], events["on"])
    source.position = len(source.data)


def _damaged(source: Source, error: Exception) -> DataError:
    return DataError(f"{source.path} is a truncated or damaged AEDAT 4 file ({error}). Fetch or copy it again.")
