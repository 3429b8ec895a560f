"""``jellyfit events info|convert|show``: what is in a file of events, in another format, or as a picture."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from jellyfit import events, pictures
from jellyfit.errors import ConfigError, DataError
from jellyfit.events.files import put_in_order
from jellyfit.events.formats import FORMATS, OpenFile, Orientation, open_file
from jellyfit.events.summary import take_all

__all__ = ["main"]

_CHUNK = 2**20
_COLUMNS = ("file", "format", "sensor", "events", "ON", "duration s", "events/s", "first µs", "last µs", "left out")


def main(arguments: Sequence[str]) -> None:
    """The verb ``events``; raises ``SystemExit`` on wrong usage and where a file of ``info`` cannot be read.

    Examples:
        >>> import contextlib, io, tempfile
        >>> from jellyfit import events
        >>> from jellyfit.events_command import main
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/two.npz"
        ...     events.write_events(path, events.make_events(t=[1, 2], x=[0, 1], y=[0, 0], p=[1, 0]))
        ...     with contextlib.redirect_stdout(io.StringIO()):
        ...         main(["convert", path, f"{folder}/two.aedat"])
        ...     len(events.read_events(f"{folder}/two.aedat"))
        2
    """
    given = _parser().parse_args(list(arguments))
    with _warnings_in_one_line():
        try:
            given.run(given)
        except OSError as error:
            raise DataError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jellyfit events", allow_abbrev=False)
    verbs = parser.add_subparsers(required=True, metavar="info|convert|show")
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument(
        "--read-as",
        metavar="FORMAT",
        choices=[known.name for known in FORMATS],
        help="format of the file; default: find out",
    )
    reading.add_argument("--orientation", choices=get_args(Orientation), default="camera", help="default: camera")
    reading.add_argument(
        "--truncated",
        choices=("error", "warn"),
        default="error",
        help="what to do with a file that is cut short; default: error",
    )
    reading.add_argument("--sample", type=int, help="which recording of a file of several")

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text, parents=[reading], allow_abbrev=False)
        verb.set_defaults(run=run)
        return verb

    info = add("info", _info, "print what is in files of events")
    info.add_argument("files", nargs="+", type=Path, metavar="FILE")
    convert = add("convert", _convert, "write the events of a file in another format")
    convert.add_argument("source", type=Path, metavar="IN")
    convert.add_argument("target", type=Path, metavar="OUT")
    convert.add_argument(
        "--format", choices=[known.name for known in FORMATS if known.writes], help="default: that of the suffix of OUT"
    )
    show = add("show", _show, "draw the events of a file as a .png of frames or a moving .gif")
    show.add_argument("file", type=Path, metavar="FILE")
    show.add_argument("--out", type=Path, required=True, metavar="preview.png|.gif")
    show.add_argument("--frames", type=int, default=16, metavar="T", help="number of frames; default: 16")
    show.add_argument(
        "--split-by", choices=("time", "number"), default="time", help="default: frames of equal duration"
    )
    show.add_argument("--fps", type=float, default=10.0, help="frames a second of a .gif; default: 10")
    return parser


def _info(given: argparse.Namespace) -> None:
    found = [_summary(path, given) for path in given.files]
    rows = [_row(summary) for summary in found if summary is not None]
    if rows:
        print(_table(rows))
    if None in found:
        raise SystemExit(1)


def _summary(path: Path, given: argparse.Namespace) -> events.Summary | None:
    """One file of several that cannot be read does not keep the others from being shown."""
    try:
        return events.summarize(path, **_how(given), progress=True)
    except (DataError, OSError) as error:
        if len(given.files) == 1:
            raise
        print(f"jellyfit events: error: {error}", file=sys.stderr)
        return None


def _row(found: events.Summary) -> tuple[str, ...]:
    size = found.sensor_size or found.extent
    left_out = [f"{count:,} {what}" for what, count in found.left_out.items()]
    if found.unsorted:
        left_out.append(f"({found.unsorted:,} events out of order)")
    return (
        str(found.path),
        found.format,
        f"{size[1]} x {size[0]}" if found.sensor_size else f">= {size[1]} x {size[0]}",
        f"{found.events:,}",
        f"{found.on_share:.1%}" if found.events else "-",
        f"{found.duration / 1e6:,.3f}",
        f"{found.rate:,.0f}" if found.duration else "-",
        "-" if found.first is None else f"{found.first:,}",
        "-" if found.last is None else f"{found.last:,}",
        "; ".join(left_out) or "-",
    )


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows under their heads; a single one as a line a fact, which needs no wide terminal."""
    if len(rows) == 1:
        return "\n".join(f"{head:<12}{value}" for head, value in zip(_COLUMNS, rows[0], strict=True))
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    numbers = {3, 4, 5, 6, 7, 8}
    lines = []
    for row in (_COLUMNS, *rows):
        cells = (
            value.rjust(n) if i in numbers else value.ljust(n)
            for i, (value, n) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _convert(given: argparse.Namespace) -> None:
    opened, recording = _read(given.source, given)
    events.write_events(given.target, recording, given.format, sensor_size=opened.recording.sensor_size)
    print(
        f"{given.target}: {len(recording):,} events, {given.target.stat().st_size:,} bytes "
        f"(from {opened.format.title}, {len(opened.source.data):,} bytes)"
    )


def _show(given: argparse.Namespace) -> None:
    suffix = given.out.suffix.lower()
    if suffix not in (".png", ".gif"):
        raise ConfigError(f"--out {given.out}: expected a name that ends in .png or .gif.")
    if not 0 < given.fps <= 100:
        raise ConfigError(f"--fps {given.fps:g}: expected frames a second, above 0 and at most 100.")
    if given.frames < 1:
        raise ConfigError(f"--frames {given.frames}: expected at least 1.")
    opened, recording = _read(given.file, given)
    if not len(recording):
        raise DataError(f"{given.file} holds no events, so there is nothing to draw.")
    extent = (int(recording["y"].max()) + 1, int(recording["x"].max()) + 1)
    size = opened.recording.sensor_size or extent
    frames = events.to_frames(recording, events.FixedNumber(given.frames, given.split_by), size)
    if suffix == ".gif":
        pictures.save_gif(frames, given.out, given.fps)
    else:
        seconds = (int(recording["t"][-1]) - int(recording["t"][0])) / 1e6
        title = f"{given.file.name}: {len(recording):,} events in {seconds:.3f} s"
        pictures.save(pictures.event_frames(frames, max_frames=given.frames, title=title), given.out)
    print(f"{given.out}: {given.frames} frames of {size[1]} x {size[0]} pixels, {len(recording):,} events")


def _read(path: Path, given: argparse.Namespace) -> tuple[OpenFile, events.EventArray]:
    opened = open_file(path, chunk=_CHUNK, **_how(given))
    chunks: list[events.EventArray] = []
    take_all(opened, chunks.append, f"Reading {path.name}", progress=True)
    return opened, put_in_order(chunks)


def _how(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "format": given.read_as,
        "orientation": given.orientation,
        "truncated": given.truncated,
        "sample": given.sample,
    }


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        print(f"jellyfit events: warning: {message}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", events.EventWarning)
        warnings.showwarning = show
        yield
