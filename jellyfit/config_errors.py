"""Say in one line what is wrong with a configuration: the first mistake, where it is, and the nearest right name."""

from __future__ import annotations

import collections.abc
import copy
import difflib
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["find_mistake", "merge_arguments", "nearest"]

_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


def nearest(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the nearest of ``names``, or nothing when none is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


class _MistakeError(Exception):
    """The first thing found wrong."""


# ------------------------------------------------------------ the configuration as the user wrote it


def merge_arguments(args: Sequence[str]) -> dict[str, Any]:
    """The configuration that command-line arguments describe: files given by ``-c``, then ``--key=value`` over them.

    Nothing is checked; keys may leave out ``init_args``, as on the command line.
    """
    config: dict[str, Any] = {}
    pending = list(args)
    while pending:
        argument = pending.pop(0)
        if not argument.startswith("-"):
            continue
        key, has_value, value = argument.lstrip("-").partition("=")
        if not has_value:
            value = pending.pop(0) if pending and not pending[0].startswith("--") else "true"
        if key in ("c", "config"):
            _merge(config, _load(Path(value)))
        else:
            _assign(config, key.removesuffix("+").split("."), _parse(value), append=key.endswith("+"))
    return config


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        folder = path.parent
        near = nearest(path.name, (p.name for p in folder.glob("*.y*ml"))) if folder.is_dir() else ""
        raise _MistakeError(f"no config file {str(path)!r}{near}")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _MistakeError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _MistakeError(f"{path}: expected keys and values at the top (model:, data:, trainer:)")
    return content


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _assign(config: dict[str, Any], keys: list[str], value: Any, append: bool = False) -> None:
    node = config
    for key in keys[:-1]:
        node = _arguments(node, key)
        held = node.get(key)
        if isinstance(held, list) and held:  # what follows a "+=" belongs to the class that it appended
            inner = held[-1] = _as_node(held[-1])
        else:
            inner = node[key] = _as_node(held)
        node = inner
    key = keys[-1]
    node = _arguments(node, key)
    old = node.get(key)
    if append:
        before = old if isinstance(old, list) else [] if old is None else [old]
        node[key] = [*before, *(value if isinstance(value, list) else [value])]
    elif isinstance(old, dict) and "class_path" in old and isinstance(value, str):
        node[key] = {"class_path": value}
    else:
        node[key] = value


def _as_node(value: Any) -> dict[str, Any]:
    """A mapping to write arguments into: a class's name alone becomes one."""
    if isinstance(value, dict):
        return value
    return {"class_path": value} if isinstance(value, str) else {}


def _arguments(node: dict[str, Any], key: str) -> dict[str, Any]:
    """Where ``key`` is written: among the arguments of the class that ``node`` names, if it names one."""
    if "class_path" in node and key not in _CLASS_KEYS:
        node = node.setdefault("init_args", {})
    return node


def _parse(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


# ------------------------------------------------------------ checking it


def find_mistake(
    args: Sequence[str], sections: Mapping[str, type], plain_keys: Iterable[str], subclass_sections: Iterable[str]
) -> str | None:
    """The first mistake in the configuration that ``args`` describe, as one line, or ``None`` when none is found.

    Args:
        args: command-line arguments after the verb.
        sections: class of each section: of ``trainer`` the class itself, of the others the base class.
        plain_keys: further keys at the top.
        subclass_sections: sections that name a class (``class_path``, ``init_args``) of their own.
    """
    try:
        config = merge_arguments(args)
        known = [*sections, *plain_keys]
        for key in config:
            if key not in known:
                raise _MistakeError(f"unknown key {key!r}{nearest(key, known)}")
        for name, base in sections.items():
            if name in subclass_sections:
                if name not in config or config[name] is None:
                    raise _MistakeError(f"no {name} given; name its class in the config file (-c FILE), key {name!r}")
                _check_value(name, base, config[name])
            else:
                _check_arguments(name, base, config.get(name) or {}, required=False)
    except _MistakeError as mistake:
        return str(mistake)
    return None


def _check_arguments(path: str, cls: Any, arguments: Any, required: bool = True, given: int = 0) -> None:
    """Check the arguments of a class; the first ``given`` are supplied by who calls it (an optimizer's parameters)."""
    if not isinstance(arguments, Mapping):
        raise _MistakeError(f"{path}: expected arguments as 'name: value'; got {arguments!r}")
    try:
        parameters = list(inspect.signature(_function(cls)).parameters.values())
    except (TypeError, ValueError):
        return
    parameters = parameters[1:] if isinstance(cls, type) else parameters
    parameters = parameters[given:]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    hints = _hints(cls)
    for name, value in arguments.items():
        if name not in named:
            if open_ended:
                continue
            raise _MistakeError(f"{path}.{name}: {_name(cls)} has no argument {name!r}{nearest(str(name), named)}")
        if name in hints:
            _check_value(f"{path}.{name}", hints[name], value)
    for name, parameter in named.items():
        if required and parameter.default is parameter.empty and name not in arguments:
            raise _MistakeError(f"{path}.{name}: missing; {_name(cls)} needs it")


def _check_value(path: str, hint: Any, value: Any) -> None:
    bases = _classes(hint)
    callables = _returned_classes(hint)
    if isinstance(value, Mapping) and "class_path" in value:
        for key in value:
            if key not in _CLASS_KEYS:
                raise _MistakeError(f"{path}.{key}: expected class_path and init_args here{nearest(key, _CLASS_KEYS)}")
        cls = _find_class(path, str(value["class_path"]), [*bases, *callables])
        allowed = tuple(base for base in [*bases, *callables] if isinstance(base, type))
        if allowed and isinstance(cls, type) and not issubclass(cls, allowed):
            names = " or ".join(_name(base) for base in allowed)
            raise _MistakeError(f"{path}: {_name(cls)} is not a subclass of {names}")
        _check_arguments(f"{path}.init_args", cls, value.get("init_args") or {}, given=1 if callables else 0)
    elif bases and isinstance(value, str) and _means_class(hint, bases, value) and not _accepts(hint, value):
        _check_value(path, hint, {"class_path": value})
    elif not _accepts(hint, value):
        if isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                _check_value(f"{path}[{i}]", _element(hint), item)
        kind = type(value).__name__
        raise _MistakeError(f"{path}: expected {_type_name(hint)}; got {value!r} ({kind})")


def _accepts(hint: Any, value: Any) -> bool:
    """Whether ``value`` is valid for ``hint``; jsonargparse decides, as it will when the configuration is parsed."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
    except Exception:  # a hint that jsonargparse does not support is not checked by it either
        return True
    try:
        parser.parse_object({"value": copy.deepcopy(value)})  # it writes into what it is given
    except Exception:  # whatever it raises, it refused the value
        return False
    return True


def _means_class(hint: Any, bases: Sequence[Any], value: str) -> bool:
    """Whether a string given where a class may be named is meant as its name, and not as a number or the like."""
    plain = any(_is_plain(option) and option is not type(None) for option in _options(hint))
    dotted = "." in value and all(part.isidentifier() for part in value.split("."))
    return not plain or dotted or bool(difflib.get_close_matches(value, _known(bases), n=1))


def _known(bases: Sequence[Any]) -> dict[str, type]:
    """The classes that can be named without their module."""
    return {cls.__name__: cls for base in bases if isinstance(base, type) for cls in _subclasses(base)}


def _find_class(path: str, name: str, bases: Sequence[Any]) -> Any:
    """Import the class ``name``, or say which part of the name is wrong."""
    if "." not in name:
        known = _known(bases)
        if name in known:
            return known[name]
        raise _MistakeError(f"{path}: no class {name!r} is known here{nearest(name, known)} (or give its whole path)")
    parts = name.split(".")
    found: Any = None
    for i, part in enumerate(parts):
        so_far = ".".join(parts[: i + 1])
        if found is not None and hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            found = importlib.import_module(so_far)
        except ModuleNotFoundError as error:
            if error.name is not None and not so_far.startswith(error.name):
                raise _MistakeError(f"{path}: importing {so_far} failed: {error}") from error
            if found is None:
                raise _MistakeError(
                    f"{path}: no module {part!r} (of {name!r}) can be imported{nearest(part, ['jellyfit', 'torch'])}"
                ) from error
            near = difflib.get_close_matches(part, _members(found), n=1)
            hint = f"; did you mean '{'.'.join([*parts[:i], near[0], *parts[i + 1 :]])}'?" if near else ""
            raise _MistakeError(f"{path}: {'.'.join(parts[:i])} has no {part!r}{hint}") from error
        except Exception as error:
            raise _MistakeError(f"{path}: importing {so_far} failed: {type(error).__name__}: {error}") from error
    return found


def _members(found: Any) -> list[str]:
    names = [n for n in (getattr(found, "__all__", None) or dir(found)) if not n.startswith("_")]
    if hasattr(found, "__path__"):
        names += [module.name for module in pkgutil.iter_modules(found.__path__)]
    return names


def _subclasses(base: type) -> list[type]:
    found: list[type] = [base]
    derived: type
    for derived in base.__subclasses__():
        found += _subclasses(derived)
    return found


# ------------------------------------------------------------ reading annotations


def _function(cls: Any) -> Any:
    """What is called to make an instance."""
    return vars(cls).get("__init__", cls.__init__) if inspect.isclass(cls) else cls


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(_function(cls))
    except Exception:  # annotations that cannot be resolved are not checked
        return {}


def _options(hint: Any) -> list[Any]:
    """The members of a union, or the hint itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [option for part in typing.get_args(hint) for option in _options(part)]
    return [hint]


def _is_plain(option: Any) -> bool:
    return option in (int, float, str, bool, type(None), dict, list, tuple, set, Any) or option is Path


def _classes(hint: Any) -> list[Any]:
    """Classes of which ``hint`` takes an instance."""
    return [option for option in _options(hint) if isinstance(option, type) and not _is_plain(option)]


def _returned_classes(hint: Any) -> list[Any]:
    """Classes that callables accepted by ``hint`` return (an optimizer, a scheduler)."""
    returned: list[Any] = []
    for option in _options(hint):
        arguments = typing.get_args(option)
        if typing.get_origin(option) is collections.abc.Callable and arguments:
            returned += _classes(arguments[-1])
    return returned


def _element(hint: Any) -> Any:
    """What a list annotated by ``hint`` holds."""
    elements: list[Any] = []
    for option in _options(hint):
        origin = typing.get_origin(option)
        arguments = typing.get_args(option)
        if origin is tuple and Ellipsis not in arguments:
            continue  # a type of its own for each
        if isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping) and arguments:
            elements.append(arguments[0])
    return elements[0] if elements else Any


def _name(cls: Any) -> str:
    module, name = getattr(cls, "__module__", ""), getattr(cls, "__qualname__", str(cls))
    parts = module.split(".")
    for i in range(1, len(parts)):  # the shortest path under which it is public
        short = ".".join(parts[:i])
        try:
            if getattr(importlib.import_module(short), name, None) is cls:
                return f"{short}.{name}"
        except ImportError:
            break
    return f"{module}.{name}"


def _type_name(hint: Any) -> str:
    names = []
    for option in _options(hint):
        if option is type(None):
            names.append("null")
        elif typing.get_origin(option) is typing.Literal:
            names += [repr(value) for value in typing.get_args(option)]
        elif isinstance(option, type) and not _is_plain(option) and typing.get_origin(option) is None:
            names.append(f"a {option.__name__} (class_path, init_args)")
        else:
            names.append(getattr(option, "__name__", str(option)) if isinstance(option, type) else str(option))
    return " or ".join(dict.fromkeys(names)).replace("typing.", "").replace("collections.abc.", "")
