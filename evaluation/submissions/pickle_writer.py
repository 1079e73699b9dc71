"""Pickles of instances whose classes are not here: names are written, nothing is imported.

The standard pickler looks up every class that it names. A submission names classes of the devkit, so its
opcodes are written here; they are of protocol 4, which Python 3.4 and later read.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.errors import BeyondDriveError

_PROTOCOL = 4


class NamedClass(NamedTuple):
    """A class of the reader's, by module and name."""

    module: str
    name: str


class Instance(NamedTuple):
    """An instance whose attributes are a plain dictionary, made without calling the constructor."""

    of: NamedClass
    attributes: Mapping[str, Any]


class UnwritableError(BeyondDriveError, TypeError):
    """A value is neither plain, nor an array of numbers, nor an :class:`Instance`."""


_RECONSTRUCT = NamedClass("numpy.core.multiarray", "_reconstruct")
"""Under this name numpy 1 and numpy 2 find it; numpy 1 knows no ``numpy._core``."""
_NDARRAY, _DTYPE = NamedClass("numpy", "ndarray"), NamedClass("numpy", "dtype")


class PickleWriter:
    """Writes one value.

    Classes, types of arrays, and instances that are the same object are written once and referred to.

    Args:
        file: Open for writing; the pickle is written as it is made.

    >>> import io
    >>> file = io.BytesIO()
    >>> PickleWriter(file).write({"x": [1, 2.5, None, True], "y": np.arange(2), "z": (np.float64(3), 2**40)})
    >>> read = pickle.loads(file.getvalue())
    >>> read["x"], read["y"].tolist(), read["z"]
    ([1, 2.5, None, True], [0, 1], (3.0, 1099511627776))
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._memo: dict[Any, int] = {}
        self._kept: list[Any] = []

    def write(self, value: Any) -> None:
        """Write the value, and the end.

        Raises:
            UnwritableError: If something in it cannot be written.
        """
        self._file.write(pickle.PROTO + bytes([_PROTOCOL]))
        self._save(value)
        self._file.write(pickle.STOP)

    def _save(self, value: Any) -> None:
        put = self._file.write
        if value is None:
            put(pickle.NONE)
        elif isinstance(value, bool):
            put(pickle.NEWTRUE if value else pickle.NEWFALSE)
        elif isinstance(value, int) and -(2**31) <= value < 2**31:
            put(pickle.BININT + struct.pack("<i", value))
        elif isinstance(value, int) and value.bit_length() < 2040:
            data = pickle.encode_long(value)
            put(pickle.LONG1 + bytes([len(data)]) + data)
        elif isinstance(value, float):
            put(pickle.BINFLOAT + struct.pack(">d", value))
        elif isinstance(value, str):
            data = value.encode("utf-8", "surrogatepass")
            put(pickle.BINUNICODE + struct.pack("<I", len(data)) + data)
        elif isinstance(value, bytes):
            put(pickle.BINBYTES + struct.pack("<I", len(value)) + value)
        elif isinstance(value, NamedClass):
            if not self._known(value):
                put(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
                self._remember(value)
        elif isinstance(value, Instance):
            self._save_instance(value)
        elif isinstance(value, np.generic):  # (as the plain number that it is)
            self._save(value.item())
        elif isinstance(value, np.ndarray):
            self._save_array(value)
        elif isinstance(value, Mapping):
            put(pickle.EMPTY_DICT + pickle.MARK)
            for key, item in value.items():
                self._save(key)
                self._save(item)
            put(pickle.SETITEMS)
        elif isinstance(value, list):
            put(pickle.EMPTY_LIST + pickle.MARK)
            for item in value:
                self._save(item)
            put(pickle.APPENDS)
        elif isinstance(value, tuple):
            self._save_tuple(value)
        else:
            raise UnwritableError(f"a {type(value).__name__} cannot be written: write numbers, texts, arrays")

    def _save_tuple(self, items: Sequence[Any]) -> None:
        self._file.write(pickle.MARK)
        for item in items:
            self._save(item)
        self._file.write(pickle.TUPLE)

    def _save_instance(self, value: Instance) -> None:
        if self._known(id(value)):
            return
        self._save(value.of)
        self._file.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
        self._remember(id(value))
        self._kept.append(value)  # (so that no other object gets its id)
        self._save(dict(value.attributes))
        self._file.write(pickle.BUILD)

    def _save_array(self, array: NDArray[Any]) -> None:
        if array.dtype.kind not in "fiub" or not array.dtype.isnative:
            raise UnwritableError(f"an array of {array.dtype} cannot be written: write numbers")
        self._save(_RECONSTRUCT)
        self._save_tuple((_NDARRAY, (0,), b"b"))
        self._file.write(pickle.REDUCE + pickle.MARK)
        self._save(1)
        self._save_tuple(array.shape)
        self._save_dtype(array.dtype)
        self._save(False)
        self._save(np.ascontiguousarray(array).tobytes())
        self._file.write(pickle.TUPLE + pickle.BUILD)

    def _save_dtype(self, dtype: np.dtype[Any]) -> None:
        if self._known(dtype):
            return
        self._save(_DTYPE)
        self._save_tuple((dtype.str[1:], False, True))
        self._file.write(pickle.REDUCE)
        self._remember(dtype)
        order = dtype.str[0]  # (what it is on this machine, or | for single bytes)
        self._save_tuple((3, order, None, None, None, -1, -1, 0))
        self._file.write(pickle.BUILD)

    def _known(self, key: Any) -> bool:
        """Refer to what has been written; False if it has not."""
        if key not in self._memo:
            return False
        self._file.write(pickle.LONG_BINGET + struct.pack("<I", self._memo[key]))
        return True

    def _remember(self, key: Any) -> None:
        self._memo[key] = len(self._memo)
        self._file.write(pickle.MEMOIZE)
