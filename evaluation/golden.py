"""Comparison with recorded files of an original, one line per file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


@dataclass
class FileComparison:
    """What came of one file.

    Attributes:
        name: The file.
        rows: Values compared.
        worst: Largest difference, as a share of its tolerance.
        difference: That difference itself.
        faults: What does not agree, in words.
        notes: What a reader has to know of how it was judged, in words.

    >>> found = FileComparison('a.npz')
    >>> found.add('speed', [1.0, 2.0], [1.0, 2.5], 0.1)
    >>> print(found)
    a.npz                                 2 rows, worst 5.0e-01 FAIL: speed: differs by 5.0e-01
    """

    name: str
    rows: int = 0
    worst: float = 0.0
    difference: float = 0.0
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def note(self, text: str) -> None:
        """Tell something once, however often it is found."""
        if text not in self.notes:
            self.notes += (text,)

    def add(self, what: str, ours: Any, golden: Any, tolerance: float = 1e-12) -> None:
        """Compare an array or number with the golden one; NaN has to be where it is."""
        a, b = np.asarray(ours, dtype=np.float64), np.asarray(golden, dtype=np.float64)
        self.rows += len(b) if b.ndim else 1
        if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
            self.faults += (f"{what}: {a.shape} against {b.shape}, or NaN elsewhere",)
            return
        # (infinite on both sides is no difference)
        gaps = np.where(a == b, 0.0, np.abs(np.where(a == b, 0.0, a) - np.where(a == b, 0.0, b)))
        difference = float(np.nanmax(gaps, initial=0.0))
        if difference / tolerance > self.worst:
            self.worst, self.difference = difference / tolerance, difference
        if not difference <= tolerance:
            self.faults += (f"{what}: differs by {difference:.1e}",)

    def __str__(self) -> str:
        """One line."""
        verdict = "FAIL: " + "; ".join(self.faults[:3]) if self.faults else "pass"
        notes = f" ({'; '.join(self.notes)})" if self.notes else ""
        return f"{self.name:<32} {self.rows:6d} rows, worst {self.difference:.1e} {verdict}{notes}"


def compared(name: str, compare: Callable[[FileComparison], None]) -> FileComparison:
    """Run the comparison of one file; whatever it raises becomes a fault of that file."""
    found = FileComparison(name)
    try:
        compare(found)
    # Foreign files may fail in any way; one must not end the comparison of the others.
    except Exception as error:
        found.faults += (f"{type(error).__name__}: {error}",)
    return found


def read_arrays(path: Path) -> Arrays:
    """Contents of an npz file of plain arrays."""
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}
