"""The errors that jellyfit raises on purpose.

Each says what was given, what was expected and what to do. They also derive from the built-in class that a Python
programmer would expect, so ``except ValueError`` keeps working. The command line prints them as one message without a
traceback (set ``JELLYFIT_DEBUG=1`` to see it).
"""

__all__ = ["ConfigError", "DataError", "InputError", "InputTypeError", "JellyfitError", "StateError"]


class JellyfitError(Exception):
    """Base class of every error that jellyfit raises on purpose."""


class InputError(JellyfitError, ValueError):
    """A value, shape or range that a function or module cannot work with."""


class InputTypeError(JellyfitError, TypeError):
    """A dtype or Python type that a function or module cannot work with."""


class StateError(JellyfitError, RuntimeError):
    """The state kept by a module does not fit what it is asked to do (usually: a reset is missing)."""


class DataError(JellyfitError, ValueError):
    """A file or data set is missing, truncated, corrupt or not what its name says."""


class ConfigError(JellyfitError, ValueError):
    """A setting that cannot work, alone or together with another one."""
