"""Why a step runs in eager PyTorch instead of in a kernel."""

__all__ = ["KernelUnavailableError", "KernelWarning", "NotPointwiseError"]


class NotPointwiseError(Exception):
    """The step cannot become a kernel; the message says what stands in the way."""


class KernelUnavailableError(Exception):
    """Kernels cannot run on this machine or device; the message says why and what to do."""


class KernelWarning(RuntimeWarning):
    """A neuron runs in eager PyTorch, slower and with the same numbers, because of what the message says."""
