"""Pickles of arrays, read without running anything."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import numpy as np

__all__ = ["ArrayUnpickler"]


class ArrayUnpickler(pickle.Unpickler):
    """Reads NumPy's arrays and Python's plain data, and nothing else: a pickle may otherwise run any program.

    Raises:
        pickle.UnpicklingError: it asks for something else; names it.

    Examples:
        >>> import io, pickle
        >>> import numpy as np
        >>> from jellyfit.datamodules.pickles import ArrayUnpickler
        >>> ArrayUnpickler(io.BytesIO(pickle.dumps({"data": np.arange(3)}))).load()
        {'data': array([0, 1, 2])}
    """

    # NumPy has moved the first one's module, so old and new files name it differently
    known: ClassVar[dict[str, Any]] = {
        "_reconstruct": np.empty(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name.split(".")[0] == "numpy" and global_name in self.known:
            return self.known[global_name]
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which is no array")
