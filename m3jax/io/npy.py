"""One-dimensional .npy files written piece by piece, their length known only at the end."""

from pathlib import Path
from typing import BinaryIO

import numpy as np


class NpyWriter:
    """Appends numbers of one dtype; `close` completes the header. `size` counts them."""

    def __init__(self, path: Path, dtype: type[np.generic]):
        self.path = path
        self.dtype = np.dtype(dtype)
        self.size = 0
        self._file: BinaryIO = open(path, "wb")
        self._start = self._header()

    def append(self, values) -> None:
        """Writes values that the dtype holds exactly; OverflowError else."""
        array = np.asarray(values)
        if array.size and not np.array_equal(array, array.astype(self.dtype)):
            raise OverflowError(f"{self.path.name} holds {self.dtype}: {array.max()} does not fit")
        self._file.write(array.astype(self.dtype).tobytes())
        self.size += array.size

    def close(self) -> None:
        """Writes the true length into the header; NumPy leaves room for its digits."""
        self._file.seek(0)
        assert self._header() == self._start, "a .npy header changed its size"
        self._file.close()

    def _header(self) -> int:
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self.size,),
            },
        )
        return self._file.tell()
