"""The errors that jellyfit raises on purpose.

Each says what was given, what was expected and what to do. They also derive from the built-in class that a Python
programmer would expect, so ``except ValueError`` keeps working. The command line prints them as one message without a
traceback (set ``JELLYFIT_DEBUG=1`` to see it).
"""

__all__ = [
    "ConfigError",
    "ControlError",
    "DataError",
    "InputError",
    "InputTypeError",
    "JellyfitError",
    "StateError",
]


class JellyfitError(Exception):
    """Base class of every error that jellyfit raises on purpose.

    Examples:
        >>> from jellyfit.errors import JellyfitError
        >>> from jellyfit.neurons import LIFNode
        >>> try:
        ...     LIFNode(tau=0.5)
        ... except JellyfitError as error:
        ...     print(error)
        LIFNode(tau=0.5): every value must be finite and above 1.
    """


class InputError(JellyfitError, ValueError):
    """A value, shape or range that a function or module cannot work with.

    Examples:
        >>> from jellyfit.errors import InputError
        >>> issubclass(InputError, ValueError)
        True
    """


class InputTypeError(JellyfitError, TypeError):
    """A dtype or Python type that a function or module cannot work with.

    Examples:
        >>> from jellyfit.errors import InputTypeError
        >>> issubclass(InputTypeError, TypeError)
        True
    """


class StateError(JellyfitError, RuntimeError):
    """The state kept by a module does not fit what it is asked to do (usually: a reset is missing).

    Examples:
        >>> import torch
        >>> from jellyfit.errors import StateError
        >>> from jellyfit.neurons import LIFNode
        >>> node = LIFNode()
        >>> spikes = node(torch.zeros(4, 3))
        >>> try:
        ...     node(torch.zeros(2, 3))  # another batch, and no reset before it
        ... except StateError as error:
        ...     print("reset_net" in str(error))
        True
    """


class DataError(JellyfitError, ValueError):
    """A file or data set is missing, truncated, corrupt or not what its name says.

    Examples:
        >>> from jellyfit.errors import DataError
        >>> issubclass(DataError, ValueError)
        True
    """


class ConfigError(JellyfitError, ValueError):
    """A setting that cannot work, alone or together with another one.

    Examples:
        >>> from jellyfit.errors import ConfigError
        >>> from jellyfit.neurons import LIFNode
        >>> try:
        ...     LIFNode(backend="gpu")
        ... except ConfigError as error:
        ...     print(error)
        backend='gpu'; expected one of 'auto', 'torch', 'cpu', 'cupy'.
    """


class ControlError(JellyfitError, RuntimeError):
    """An environment that is to be controlled raised an exception, or showed what cannot be learnt from.

    Attributes:
        resumable: what was learnt until then is whole, in every process: a checkpoint of this moment can be gone on
            from. ``False`` until the task that catches the error says so.

    Examples:
        >>> from jellyfit.errors import ControlError
        >>> issubclass(ControlError, RuntimeError), ControlError("the motor is stuck").resumable
        (True, False)
    """

    resumable = False
