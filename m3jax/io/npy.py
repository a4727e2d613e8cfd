"""One-dimensional .npy files that are written in parts, before their length is known."""

from pathlib import Path
from typing import BinaryIO

import numpy as np


class NpyWriter:
    """Appends numbers of one dtype to a .npy file; `close` completes its header."""

    def __init__(self, path: Path, dtype: type[np.generic]):
        self.path = path
        self.dtype = np.dtype(dtype)
        self.size = 0
        self._file: BinaryIO = open(path, "wb")
        self._start = self._header()

    def append(self, values) -> None:
        """Writes values; raises OverflowError for a value that the dtype cannot hold exactly."""
        array = np.asarray(values)
        if array.size and not np.array_equal(array, array.astype(self.dtype)):
            raise OverflowError(f"{self.path.name} holds {self.dtype}: {array.max()} does not fit")
        self._file.write(array.astype(self.dtype).tobytes())
        self.size += array.size

    def close(self) -> None:
        """Writes the final length into the header, where NumPy has reserved space for it."""
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
