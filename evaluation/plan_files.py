"""Files of plans and of scores: npz archives with one array per scene token."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.files import atomic_file
from beyonddrive.evaluation.score_labels import ScoreLabel
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import NUM_POSES, check_plans

_SUFFIX = ".npy"
_REMEDY = "write it with beyonddrive test --plans, or with numpy.savez"


class PlanFileError(BeyondDriveError, ValueError):
    """A file of plans is missing, damaged, or not an npz archive; the message names it."""


class PlanFile(Mapping[str, NDArray[np.float64]]):
    """Plans (N, 8, 3) by scene token, read from an npz archive one scene at a time; pickled by its path.

    Args:
        path: Archive as ``numpy.savez`` writes it, with an array per token: (N, 8, 3), or (8, 3) for one
            plan. Nothing in it is unpickled.

    Raises:
        PlanFileError: If the file is missing, cut off, or not an archive of arrays.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._archive: zipfile.ZipFile | None = None
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except FileNotFoundError:
            raise PlanFileError(f"{self.path}: there is no such file of plans; {_REMEDY}") from None
        except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise PlanFileError(
                f"{self.path}: not an npz archive of plans, or damaged ({error}); {_REMEDY}"
            ) from error
        other = [name for name in names if not name.endswith(_SUFFIX)]
        if other:
            raise PlanFileError(f"{self.path}: {other[0]!r} is not an array; {_REMEDY}")
        self._tokens = {name.removesuffix(_SUFFIX): name for name in names}
        self._repeated = {name for name, count in Counter(names).items() if count > 1}

    def __getitem__(self, token: str) -> NDArray[np.float64]:
        """Read the plans (N, 8, 3) of a scene.

        Raises:
            KeyError: If there are none.
            PlanFileError: If there are several arrays, or it is damaged or not a plain one.
            PlanError: If the array has another shape, or does not hold finite numbers.
        """
        array = self._array(token)
        return check_plans(array[None] if array.ndim == 2 else array, f"{self.path}: {token}")

    def one(self, token: str) -> NDArray[np.float64]:
        """Read the plan (8, 3) of a scene that has one.

        Raises:
            KeyError: If there is none.
            PlanFileError: If there are several, or as for all plans of a scene.
            PlanError: As for all plans of a scene.
        """
        plans = self[token]
        if len(plans) != 1:
            raise PlanFileError(f"{self.path}: {token}: needs one plan ({NUM_POSES}, 3), got {plans.shape}")
        plan: NDArray[np.float64] = plans[0]
        return plan

    def _array(self, token: str) -> NDArray[Any]:
        name = self._tokens[token]
        if name in self._repeated:
            raise PlanFileError(f"{self.path}: holds plans of {token} more than once; keep one of them")
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
        try:
            with self._archive.open(name) as member:
                # (to the end, where the archive compares the checksum)
                array = np.lib.format.read_array(member, allow_pickle=False)
                if member.read(1):
                    raise ValueError("there is more after the array")
                return array
        except Exception as error:  # zlib.error and what else a damaged stream raises
            raise PlanFileError(
                f"{self.path}: the plans of {token} cannot be read ({error}); write the file again"
            ) from error

    def __contains__(self, token: object) -> bool:
        return token in self._tokens

    def __iter__(self) -> Iterator[str]:
        return iter(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None}


def read_label(path: Path) -> ScoreLabel | None:
    """What the scores of an npz archive are of; None if they carry no label, as plans and old files do not.

    Raises:
        PlanFileError: If it is no archive, or its label is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            comment = archive.comment
        return ScoreLabel.from_dict(json.loads(comment)["label"]) if comment else None
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise PlanFileError(f"{path}: the label of its scores cannot be read ({error})") from error


def write_arrays(
    path: Path, arrays: Iterable[tuple[str, NDArray[Any]]], label: ScoreLabel | None = None
) -> None:
    """Write an npz archive, one array at a time, whole or not at all; the same arrays give the same bytes.

    Unlike ``numpy.savez`` it takes any token for a name.

    Args:
        path: The archive.
        arrays: Token and array, in the order of the archive.
        label: What scores are of, for :func:`read_label`; it is the comment of the archive, which numpy
            passes over.
    """
    with atomic_file(Path(path)) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for token, array in arrays:
            member = zipfile.ZipInfo(token + _SUFFIX)  # with a fixed date
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
        if label is not None:
            archive.comment = json.dumps({"label": label.to_dict()}).encode()
