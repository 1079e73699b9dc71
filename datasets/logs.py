"""NAVSIM logs: pickles read by an allow-list, so that a file can only ever become data."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

Frame = dict[str, Any]
"""One frame of a log as NAVSIM_FORMAT, section 2 lists it."""

CAMERA_NAMES = ("CAM_F0", "CAM_L0", "CAM_L1", "CAM_L2", "CAM_R0", "CAM_R1", "CAM_R2", "CAM_B0")
"""The eight cameras that every frame names."""

_REMEDY = "restore the file from the data set or generate it again"
_PLAIN_DTYPE = re.compile(r"[|<>=]?(?:b1|[iu][1248]|f[248]|[SU]\d+|O8?|\?)\Z")


class LogError(ValueError):
    """A log cannot be read, or does not hold what a NAVSIM log holds; the message names the file."""


def read_log(path: Path) -> list[Frame]:
    """Read one log: its frames in time order, 0.5 s apart (NAVSIM_FORMAT, section 2).

    Only plain Python values and numpy arrays are built from the pickle; whatever else it asks for is refused
    before it runs. Keys, types, shapes and equal lengths are checked here, finite values where they are used
    (:mod:`beyonddrive.datasets.scene`), so that one bad number costs one scene and not the log.

    Args:
        path: ``<root>/navsim_logs/<split>/<log_name>.pkl``.

    Raises:
        LogError: If the file is missing, truncated, corrupt, asks for code, or lacks a key; the message names
            file, frame index, key and remedy.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = _LogUnpickler(file).load()
            frames = _materialise(content)
    except LogError as error:
        raise LogError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise LogError(f"{path}: there is no such log; check the data root and the split") from None
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error}); {_REMEDY}") from error
    except Exception as error:
        # A damaged pickle can raise nearly anything, from EOFError to UnicodeDecodeError and MemoryError.
        raise LogError(
            f"{path}: corrupt or truncated pickle ({type(error).__name__}: {error}); {_REMEDY}"
        ) from error
    _check_log(path, frames)
    return frames


# ------------------------------------------------------------------ unpickling
class _Dtype:
    """Stands for a pickled ``numpy.dtype``; only flat standard types are accepted.

    The real ``dtype.__setstate__`` trusts the flags it is given, and wrong flags make numpy read bytes as
    object pointers. So the state is interpreted here instead.
    """

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        if isinstance(code, bytes):
            code = code.decode("latin1")
        if not isinstance(code, str) or not _PLAIN_DTYPE.match(code):
            raise LogError(f"refused array type {code!r}: a log holds numbers and strings only")
        self.code = code.lstrip("|<>=")
        self.order = code[0] if code[0] in "<>" else "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise LogError("refused a structured array type: a log holds numbers and strings only")
        if state[1] in ("<", ">"):
            self.order = state[1]

    def build(self) -> np.dtype[Any]:
        return np.dtype(self.code if self.code[0] in "O?" else self.order + self.code)


class _Array:
    """Stands for a pickled ``numpy.ndarray`` until its state arrives."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _build_array(data, dtype, shape, "F" if fortran else "C")


class _Allowed:
    """A name that a log may use, bound to what stands for it. Immutable, so that a pickle cannot patch it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise LogError("refused a pickle that alters what reads it")

    def __setstate__(self, state: Any) -> NoReturn:
        raise LogError("refused a pickle that alters what reads it")


def _build_array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    if not isinstance(dtype, _Dtype):
        raise LogError("an array has no type")
    kind = dtype.build()
    shape = tuple(int(size) for size in shape)
    if any(size < 0 for size in shape):
        raise LogError(f"an array has the impossible shape {shape}")
    if kind.hasobject:
        if not isinstance(data, list) or len(data) != int(np.prod(shape)):
            raise LogError(f"an array of shape {shape} does not come with a list of as many objects")
        flat = np.empty(len(data), dtype=object)
        flat[:] = [_materialise(item) for item in data]
        return flat.reshape(shape, order="F" if order == "F" else "C")
    if isinstance(data, str):  # protocol 2 written by Python 2
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise LogError(f"an array of shape {shape} comes without its bytes")
    # A copy, because the array shall be writable and must not share memory with a bytearray of the pickle.
    flat = np.frombuffer(data, dtype=kind, count=len(data) // kind.itemsize if kind.itemsize else 0).copy()
    if flat.nbytes != len(data) or flat.size != int(np.prod(shape)):
        raise LogError(f"an array of shape {shape} and type {kind} comes with {len(data)} bytes")
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _build_scalar(dtype: Any, data: Any) -> Any:
    return _build_array(data, dtype, (1,))[0]


def _not_callable(*_: Any) -> NoReturn:
    raise LogError("refused a pickle that builds numpy.ndarray by hand")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise LogError(f"refused to encode text as {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _not_callable,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{
        (f"numpy.{core}.{module}", name): make
        for core in ("core", "_core")  # numpy 1 and numpy 2
        for module, name, make in (
            ("multiarray", "_reconstruct", lambda *_: _Array()),
            ("multiarray", "scalar", _build_scalar),
            ("numeric", "_frombuffer", _build_array),
        )
    },
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
    },
}


class _LogUnpickler(pickle.Unpickler):
    """Resolves names by :data:`_ALLOWED` and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        make = _ALLOWED.get((module, name))
        if make is None:
            raise LogError(
                f"refused to load {module}.{name}: a log may hold plain Python values and numpy arrays only, "
                f"nothing of this file was run; do not trust where it came from"
            )
        return _Allowed(make)

    def persistent_load(self, pid: Any) -> NoReturn:
        raise LogError("refused a reference to an object outside the file")


def _materialise(value: Any) -> Any:
    """Put the arrays in place of what stood for them; containers are changed in place."""
    kind = type(value)
    if kind is _Array:
        return value.value
    if kind is dict:
        for key, item in value.items():
            if type(item) not in _LEAVES:
                value[key] = _materialise(item)
    elif kind is list:
        for index, item in enumerate(value):
            if type(item) not in _LEAVES:
                value[index] = _materialise(item)
    elif kind is tuple:
        return tuple(_materialise(item) for item in value)
    elif kind is _Dtype or kind is _Allowed:
        raise LogError("the file holds a type in place of a value")
    return value


_LEAVES = frozenset((str, int, float, bool, type(None), bytes))


# ------------------------------------------------------------------ validation
def _check_log(path: Path, frames: Any) -> None:
    if not isinstance(frames, list):
        raise LogError(f"{path}: a log is a list of frames, this is a {type(frames).__name__}; {_REMEDY}")
    seen: dict[str, int] = {}
    last_stamp = -1
    for index, frame in enumerate(frames):
        try:
            _check_frame(frame)
        except LogError as error:
            raise LogError(f"{path}: frame {index}: {error}; {_REMEDY}") from None
        token, stamp = frame["token"], int(frame["timestamp"])
        if token in seen:
            raise LogError(
                f"{path}: frame {index}: key 'token': {token} is also the token of frame {seen[token]}; "
                f"{_REMEDY}"
            )
        if stamp <= last_stamp:
            raise LogError(
                f"{path}: frame {index}: key 'timestamp': {stamp} us is not after the frame before it "
                f"({last_stamp} us); {_REMEDY}"
            )
        seen[token], last_stamp = index, stamp


_TYPES: dict[str, type | tuple[type, ...]] = {
    "token": str,
    "timestamp": (int, np.integer),
    "log_name": str,
    "scene_token": str,
    "map_location": str,
    "lidar_path": (str, type(None)),
    "roadblock_ids": (list, tuple, np.ndarray),
    "traffic_lights": (list, tuple, np.ndarray),
    "anns": dict,
    "cams": dict,
}
_SHAPES: dict[str, tuple[int, ...]] = {
    "ego2global_translation": (3,),
    "ego2global_rotation": (4,),
    "ego_dynamic_state": (4,),
    "driving_command": (4,),
}
_CAMERA_SHAPES: dict[str, tuple[int, ...]] = {
    "sensor2lidar_rotation": (3, 3),
    "sensor2lidar_translation": (3,),
    "cam_intrinsic": (3, 3),
    "distortion": (5,),
}


def _check_frame(frame: Any) -> None:
    if not isinstance(frame, dict):
        raise LogError(f"a frame is a dict, this is a {type(frame).__name__}")
    for key, kind in _TYPES.items():
        if not isinstance(_get(frame, key), kind):
            raise LogError(f"key {key!r}: a {type(frame[key]).__name__} is not what a log holds there")
    for key, shape in _SHAPES.items():
        _check_shape(key, _get(frame, key), shape)
    for light in frame["traffic_lights"]:
        if len(light) != 2:
            raise LogError("key 'traffic_lights': each entry is (lane connector id, is red)")
    _check_annotations(frame["anns"])
    for name in CAMERA_NAMES:
        camera = _get(frame["cams"], name, "cams.")
        if not isinstance(camera, dict) or not isinstance(_get(camera, "data_path", f"cams.{name}."), str):
            raise LogError(f"key 'cams.{name}.data_path': must be a path")
        for key, shape in _CAMERA_SHAPES.items():
            _check_shape(f"cams.{name}.{key}", _get(camera, key, f"cams.{name}."), shape)


def _check_annotations(anns: dict[str, Any]) -> None:
    names = _get(anns, "gt_names", "anns.")
    count = len(names)
    for key, columns in (("gt_boxes", 7), ("gt_velocity_3d", 3)):
        _check_shape(f"anns.{key}", _get(anns, key, "anns."), (count, columns))
    for key in ("instance_tokens", "track_tokens"):
        if len(_get(anns, key, "anns.")) != count:
            raise LogError(f"key 'anns.{key}': {len(anns[key])} entries, but 'anns.gt_names' has {count}")


def _get(mapping: dict[str, Any], key: str, prefix: str = "") -> Any:
    try:
        return mapping[key]
    except KeyError:
        raise LogError(f"key '{prefix}{key}' is missing") from None


def _check_shape(key: str, value: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(value, np.ndarray):
        try:
            value = np.asarray(value)
        except ValueError:
            raise LogError(f"key {key!r}: the rows differ in length") from None
    if value.shape != shape or value.dtype.kind not in "fiub":
        raise LogError(
            f"key {key!r}: must be numbers of shape {shape}, got {value.dtype} of shape {value.shape}"
        )
