"""Scenes of a split in a small file: camera images compressed, all else without loss."""

from __future__ import annotations

import json
import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save

from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.geometry import MadeLength
from beyonddrive.engine.together.scenes import SceneTensors, TogetherError

_IMAGE, _MAP, _LEVELS, _RAW = "webp", "png", "levels", "lzma"
_MAX_LEVELS = 255


def pack_scenes(scenes: SceneTensors, path: Path, image_quality: int = 80) -> int:
    """Write scenes; returns the bytes of the file.

    Camera images of bytes become WebP of ``image_quality``, maps of classes PNG, grids of few different
    values (LiDAR rasters) numbers of these values, and the rest stays as it is, all but the first without
    loss.

    Raises:
        TogetherError: If a map has classes that are no bytes.
    """
    arrays: dict[str, NDArray[Any]] = {}
    told: dict[str, dict[str, Any]] = {}
    for key, value in scenes.fields.items():
        array = value.numpy()
        entry = {"dtype": str(array.dtype), "shape": list(array.shape)}
        if key == "inputs.camera" and array.dtype == np.uint8:  # (floats in [0, 1] would become 0 and 1)
            entry["coding"] = _IMAGE
            settings = [cv2.IMWRITE_WEBP_QUALITY, image_quality]
            arrays |= _blobs(key, [_encoded(".webp", image.transpose(1, 2, 0), settings) for image in array])
        elif array.ndim == 3 and key.endswith("semantic_map"):
            if array.min() < 0 or array.max() > 255:
                raise TogetherError(f"{key}: classes {array.min()} to {array.max()} are no bytes")
            entry["coding"] = _MAP
            settings = [cv2.IMWRITE_PNG_COMPRESSION, 9]
            arrays |= _blobs(key, [_encoded(".png", one.astype(np.uint8), settings) for one in array])
        elif array.ndim >= 4 and len(levels := np.unique(array)) <= _MAX_LEVELS:
            entry["coding"] = _LEVELS
            arrays[f"{key}/levels"] = levels
            arrays[f"{key}/data"] = _squeezed(np.searchsorted(levels, array).astype(np.uint8))
        else:
            entry["coding"] = _RAW
            arrays[f"{key}/data"] = _squeezed(array)
        told[key] = entry
    metadata = {
        "tokens": json.dumps(scenes.tokens),
        "fields": json.dumps(told),
        "lengths": json.dumps(scenes.lengths),
    }
    data = save({key: np.ascontiguousarray(value) for key, value in arrays.items()}, metadata)
    write_atomically(path, data)
    return len(data)


def unpack_scenes(path: Path, threads: int = 8) -> SceneTensors:
    """Read what :func:`pack_scenes` wrote, on the CPU.

    Raises:
        TogetherError: If the file is something else.
    """
    data = path.read_bytes()
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        tokens, told = json.loads(metadata["tokens"]), json.loads(metadata["fields"])
        arrays = load(data)
        with ThreadPoolExecutor(threads) as pool:
            fields = {key: torch.from_numpy(_read(key, entry, arrays, pool)) for key, entry in told.items()}
        # (files of version 0.2 do not tell them)
        lengths = tuple(MadeLength(*made) for made in json.loads(metadata.get("lengths", "[]")))
    except Exception as error:
        raise TogetherError(f"{path}: not a file of packed scenes ({error!r}); pack them anew") from error
    return SceneTensors(tuple(tokens), fields, lengths)


def _read(
    key: str, entry: dict[str, Any], arrays: dict[str, NDArray[Any]], pool: ThreadPoolExecutor
) -> NDArray[Any]:
    shape, dtype, coding = tuple(entry["shape"]), np.dtype(entry["dtype"]), entry["coding"]
    data = arrays[f"{key}/data"]
    if coding == _RAW:
        return np.frombuffer(bytearray(lzma.decompress(data.tobytes())), dtype).reshape(shape)
    if coding == _LEVELS:
        numbers = np.frombuffer(lzma.decompress(data.tobytes()), np.uint8).reshape(shape)
        return arrays[f"{key}/levels"].astype(dtype)[numbers]
    ends = arrays[f"{key}/ends"]
    found = np.empty(shape, dtype)

    def decode(row: int) -> None:
        image = cv2.imdecode(data[ends[row - 1] if row else 0 : ends[row]], cv2.IMREAD_UNCHANGED)
        if image is None:
            raise TogetherError(f"{key}: the image of scene {row} is damaged")
        found[row] = image.transpose(2, 0, 1) if coding == _IMAGE else image

    list(pool.map(decode, range(shape[0])))
    return found


def _encoded(ending: str, image: NDArray[Any], settings: list[int]) -> NDArray[np.uint8]:
    done, blob = cv2.imencode(ending, np.ascontiguousarray(image), settings)
    if not done:
        raise TogetherError(f"OpenCV cannot write {ending[1:]} images here")
    return np.asarray(blob, np.uint8).ravel()


def _blobs(key: str, blobs: list[NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
    return {f"{key}/data": np.concatenate(blobs), f"{key}/ends": np.cumsum([len(blob) for blob in blobs])}


def _squeezed(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(lzma.compress(array.tobytes(), preset=6), np.uint8)
