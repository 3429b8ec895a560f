"""The ``jellyfit`` command: which verbs there are, and how errors end.

Exit status: 0 done; 1 failed; 2 a mistake in the command or the configuration; 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jellyfit

__all__ = ["main"]

TRAINER_VERBS = {
    "fit": "train a network:                jellyfit fit -c configs/digits.yaml",
    "validate": "score it on the validation data: jellyfit validate -c configs/digits.yaml --ckpt_path best",
    "test": "score it on the test data:      jellyfit test -c configs/digits.yaml --ckpt_path best",
    "predict": "write predictions.csv:          jellyfit predict -c configs/digits.yaml --ckpt_path best",
}
VERBS = {
    **TRAINER_VERBS,
    "data": "fetch, decode, verify data:     jellyfit data prepare -c configs/nmnist.yaml   (or: check)",
    "doctor": "what is installed, what can run here, and why the rest cannot",
    "events": "files of events:                 jellyfit events info|convert|show FILE",
    "kernels": "the source generated for a neuron:  jellyfit kernels show LIFNode --target cuda",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; ``args`` default to those of the process. Raises ``SystemExit`` on errors."""
    if args is not None:
        sys.argv = [sys.argv[0], *args]  # Lightning starts the other processes of a node from it
    arguments = sys.argv[1:]
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # people's own classes are found from where they work
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return
    verb = arguments[0]
    if verb in ("--version", "-V"):
        print(f"jellyfit {jellyfit.__version__}")
        return
    if verb not in VERBS:
        from jellyfit.config_errors import nearest

        _fail(f"jellyfit: error: unknown verb {verb!r}{nearest(verb, VERBS)}\nVerbs: {', '.join(VERBS)}", 2)
    if verb == "doctor":
        from jellyfit.doctor import report

        print(report())
        return
    _run(verb, arguments[1:])


def _run(verb: str, arguments: list[str]) -> None:
    from jellyfit.errors import ConfigError, JellyfitError

    try:
        if verb == "kernels":
            from jellyfit.show import main as show

            show(arguments)
            return
        if verb == "events":
            from jellyfit.events_command import main as events

            events(arguments)
            return
        from jellyfit.cli import run, run_data

        if verb == "data":
            status = run_data(arguments)
            if status:
                raise SystemExit(status)
            return
        run(verb, arguments)
    except KeyboardInterrupt:
        _fail("\nInterrupted.", 130)
    except JellyfitError as error:
        if os.environ.get("JELLYFIT_DEBUG") == "1":
            raise
        message = "\n".join([f"jellyfit {verb}: error: {error}", *getattr(error, "__notes__", ())])
        _fail(message, 2 if isinstance(error, ConfigError) else 1)


def _fail(message: str, status: int) -> None:
    print(message, file=sys.stderr, flush=True)
    raise SystemExit(status)


def _help() -> str:
    verbs = "\n".join(f"  {name:<10}{what}" for name, what in VERBS.items())
    return (
        f"jellyfit {jellyfit.__version__}: train spiking neural networks from one YAML file\n\n"
        f"usage: jellyfit VERB [-c FILE.yaml] [--KEY=VALUE ...]\n\n{verbs}\n\n"
        "jellyfit VERB --help lists every key of a verb; jellyfit fit -c FILE --print_config shows what a file means."
    )


if __name__ == "__main__":
    main()
