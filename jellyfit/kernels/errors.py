"""Why a step runs in eager PyTorch instead of in a kernel."""

__all__ = ["KernelUnavailableError", "KernelWarning", "NotPointwiseError"]


class NotPointwiseError(Exception):
    """The step cannot become a kernel; the message says what stands in the way.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels import FusedStep, NotPointwiseError
        >>> def mixes(x, states, params, say):
        ...     return x.cumsum(-1), list(states)
        >>> try:
        ...     FusedStep(mixes, [1, 2], torch.float32, torch.device("cpu"), ["v"], [0.0], [], "Mixer")
        ... except NotPointwiseError as error:
        ...     print("cumsum" in str(error))
        True
    """


class KernelUnavailableError(Exception):
    """Kernels cannot run on this machine or device; the message says why and what to do.

    Examples:
        >>> import torch
        >>> from jellyfit import kernels
        >>> try:
        ...     kernels.check_device("cupy", torch.device("cpu"))
        ... except kernels.KernelUnavailableError as error:
        ...     print(error)
        the input is on cpu, and that backend runs on cuda
    """


class KernelWarning(RuntimeWarning):
    """A neuron runs in eager PyTorch, slower and with the same numbers, because of what the message says.

    Examples:
        >>> import warnings
        >>> from jellyfit.kernels import KernelWarning
        >>> warnings.simplefilter("error", KernelWarning)  # rather stop than run slower
    """
