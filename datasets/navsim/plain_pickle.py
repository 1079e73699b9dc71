"""Pickles that can only become data: plain Python values and numpy arrays, whatever else they ask for."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from beyonddrive.datasets.navsim.pickle_opcodes import PlainPickleError, check_opcodes
from beyonddrive.datasets.navsim.pickled_arrays import (
    Budget,
    PickledArray,
    PickledDtype,
    build_array,
    build_scalar,
)


@dataclass(frozen=True, eq=False)
class PlainObject:
    """What a pickle says of an instance of a class that was never imported.

    Attributes:
        name: The class, ``module.name``.
        args: What its constructor was given.
        state: What ``__setstate__`` would have been given; None for nothing.
    """

    name: str
    args: tuple[Any, ...]
    state: Any

    def attributes(self) -> dict[str, Any]:
        """The attributes that the state holds, from the instance's dictionary and its slots.

        Raises:
            PlainPickleError: If it holds something else.
        """
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        found: dict[str, Any] = {}
        for part in parts:
            if part is not None and not isinstance(part, dict):
                raise PlainPickleError(f"a {self.name} has a state that is no dictionary")
            found |= part or {}
        return found


def load_plain_pickle(path: Path, classes: Collection[tuple[str, str]] = ()) -> Any:
    """Read a file of plain Python values and numpy arrays, written under numpy 1 or 2.

    Args:
        path: The file.
        classes: As for :func:`loads_plain_pickle`.

    Raises:
        PlainPickleError: If the file is truncated or corrupt, or names anything that is not on the list.
        OSError: If the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except MemoryError as error:
        raise PlainPickleError("the file does not fit into memory") from error
    return loads_plain_pickle(content, classes)


def loads_plain_pickle(content: bytes, classes: Collection[tuple[str, str]] = ()) -> Any:
    """Read a pickle of plain Python values and numpy arrays, written under numpy 1 or 2.

    No name in it is imported. numpy's own constructors are not called either, because a pickle can make
    them read out of bounds; arrays are built here from their bytes, type and shape.

    Args:
        content: The pickle.
        classes: (module, name) of classes whose instances may be in it; they come out as
            :class:`PlainObject`, and nothing of theirs is run.

    Raises:
        PlainPickleError: If it is truncated or corrupt, or names anything that is not on the list.

    >>> import pickle
    >>> loads_plain_pickle(pickle.dumps({"x": [1, 2.5]}))
    {'x': [1, 2.5]}
    """
    try:
        check_opcodes(content)
        budget = Budget(len(content))
        value = _PlainUnpickler(content, budget, classes).load()
        seen: _Seen = {}
        for array in budget.object_arrays:
            for index, item in enumerate(array):
                array[index] = _materialise(item, seen)
        return _materialise(value, seen)
    except PlainPickleError:
        raise
    except Exception as error:
        # A damaged pickle can raise nearly anything, from EOFError to UnicodeDecodeError and MemoryError.
        raise PlainPickleError(f"corrupt or truncated pickle ({type(error).__name__}: {error})") from error


class _Allowed:
    """A name that a file may use, bound to what stands for it; immutable, so that no pickle can patch it."""

    __slots__ = ("_budget", "_make")

    def __init__(self, make: Callable[..., Any], budget: Budget) -> None:
        object.__setattr__(self, "_make", make)
        object.__setattr__(self, "_budget", budget)

    def __call__(self, *args: Any) -> Any:
        return self._make(self._budget, *args)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise PlainPickleError("refused a pickle that alters what reads it")

    def __setstate__(self, state: Any) -> NoReturn:
        raise PlainPickleError("refused a pickle that alters what reads it")


def _not_callable(*_: Any) -> NoReturn:
    raise PlainPickleError("refused a pickle that builds numpy.ndarray by hand")


def _encode(budget: Budget, text: Any, encoding: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise PlainPickleError(f"refused to encode text as {encoding!r}")
    budget.spend(len(text))
    return text.encode("latin1")


def _no_bytes(_budget: Budget) -> bytes:
    """How protocol 2 writes no bytes; with an argument it could ask for any amount of memory."""
    return b""


def _set(budget: Budget, items: Any = ()) -> set[Any]:
    """How protocol 2 writes sets."""
    budget.spend(len(items))
    if any(type(part) is tuple for item in items if type(item) is tuple for part in item):
        raise PlainPickleError("refused a set of tuples of tuples: the file should hold numbers and strings")
    return set(items)


def _frozenset(budget: Budget, items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(budget, items))


def _complex(_budget: Budget, real: Any, imaginary: Any) -> complex:
    return complex(real, imaginary)


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _not_callable,
    ("numpy", "dtype"): PickledDtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    **{
        (f"numpy.{core}.{module}", name): make
        for core in ("core", "_core")  # numpy 1 and numpy 2
        for module, name, make in (
            ("multiarray", "_reconstruct", PickledArray),
            ("multiarray", "scalar", build_scalar),
            ("numeric", "_frombuffer", build_array),
        )
    },
    **{
        (module, name): make
        for module in ("builtins", "__builtin__")
        for name, make in (("set", _set), ("frozenset", _frozenset), ("complex", _complex))
    },
}


class _PlainUnpickler(pickle.Unpickler):
    """Resolves names by :data:`_ALLOWED` and nothing else."""

    def __init__(self, content: bytes, budget: Budget, classes: Collection[tuple[str, str]] = ()) -> None:
        super().__init__(io.BytesIO(content))
        self._budget = budget
        self._stand_ins = {key: _stand_in(".".join(key)) for key in classes}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._stand_ins:
            return self._stand_ins[module, name]
        make = _ALLOWED.get((module, name))
        if make is None:
            raise PlainPickleError(
                f"refused to load {module}.{name}: the file may hold plain Python values and numpy arrays "
                f"only, nothing of this file was run; do not trust where it came from"
            )
        return _Allowed(make, self._budget)

    def persistent_load(self, pid: Any) -> NoReturn:
        raise PlainPickleError("refused a reference to an object outside the file")


class _StandIn:
    """Stands for an instance of a class that may be in the file: keeps what it is given."""

    __slots__ = ("args", "state")
    of = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> _StandIn:
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> NoReturn:
        raise PlainPickleError("refused to copy what a pickle holds")


def _stand_in(name: str) -> type[_StandIn]:
    """A type of its own for every class, because pickles make instances of types only."""
    return type("_StandInOfAClass", (_StandIn,), {"__slots__": (), "of": name})


_LEAVES = frozenset((str, int, float, bool, type(None), bytes))
_Seen = dict[int, tuple[Any, Any]]


def _materialise(value: Any, seen: _Seen) -> Any:
    """Put arrays in place of what stood for them; lists and dicts are changed in place, each once."""
    kind = type(value)
    if kind is PickledArray:
        return value.value
    if kind is PickledDtype or kind is _Allowed:
        raise PlainPickleError("the file holds a type in place of a value")
    if kind is type:
        raise PlainPickleError("the file holds a type in place of a value")
    if issubclass(kind, _StandIn):
        if id(value) not in seen:
            made = PlainObject(kind.of, (), None)
            seen[id(value)] = value, made
            object.__setattr__(made, "args", _materialise(value.args, seen))
            object.__setattr__(made, "state", _materialise(value.state, seen))
        return seen[id(value)][1]
    if kind not in (dict, list, tuple):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    # The value itself is kept too, because its id must not be used again.
    seen[id(value)] = value, value
    if kind is tuple:
        result = tuple(_materialise(item, seen) for item in value)
        seen[id(value)] = value, result
        return result
    for key, item in value.items() if kind is dict else enumerate(value):
        if type(item) not in _LEAVES:
            value[key] = _materialise(item, seen)
    return value
