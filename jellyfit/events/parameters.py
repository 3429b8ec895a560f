"""What a cache needs to know of an object: its class and its parameters, as plain data."""

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from jellyfit.errors import InputTypeError

__all__ = ["Parameterized"]


class Parameterized:
    """Base of objects that are nothing but their parameters.

    A subclass keeps each argument of its ``__init__`` as an attribute of the same name and nothing else. It then
    shows, compares, hashes and pickles by them, and :meth:`key` names it in a cache.
    """

    def key(self) -> dict[str, object]:
        """What identifies this object across processes and sessions.

        Returns:
            Plain data for JSON: ``"class"`` and one entry per parameter. A function stands as its qualified name and
            the SHA-256 of its source text (None where there is none, as for a function written in C), so that an
            edited function is another key; what the function itself calls or encloses is not seen.

        Raises:
            InputTypeError: A parameter is no plain data, nor a function; the subclass should override ``key``.
        """
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"class": name, **{key: _plain(value) for key, value in vars(self).items()}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={_show(value)}' for name, value in vars(self).items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).items()))


def _plain(value: Any) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, functools.partial):
        keywords = {name: _plain(item) for name, item in value.keywords.items()}
        return {"partial": _plain(value.func), "args": _plain(value.args), "keywords": keywords}
    if isinstance(value, Parameterized):
        return value.key()
    if callable(value):
        return {"function": _name(value), "sha256": _source_digest(value)}
    raise InputTypeError(
        f"A parameter of type {type(value).__name__} cannot name a cache: {value!r}. Use numbers, strings, tuples or "
        "functions, or override key() to give plain data."
    )


def _show(value: Any) -> str:
    return _name(value) if callable(value) and not isinstance(value, Parameterized | functools.partial) else repr(value)


def _name(function: Callable[..., Any]) -> str:
    """The dotted path of a function, or of the class of a callable object."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _source_digest(function: Callable[..., Any]) -> str | None:
    named = function if hasattr(function, "__qualname__") else type(function)
    try:
        return hashlib.sha256(inspect.getsource(named).encode()).hexdigest()
    except (OSError, TypeError):
        return None
