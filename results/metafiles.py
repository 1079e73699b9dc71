"""Figures of the model zoo's metafiles that are of rows of ``results/``, held against these."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from beyonddrive.engine.files import write_atomically
from beyonddrive.results.marks import FigureError, figure, row_of, scores_of
from beyonddrive.structures.errors import BeyondDriveError

RESULT = re.compile(r'(Source: "([^"|]+) \| ([^"]+)"\n +Metrics: \{)([^}]*)\}')
"""A result of a row of a kept table, with its metrics in the line behind it."""


def check_metafile(path: Path, name: str, write: bool) -> list[str]:
    """Results of a metafile that are not those of their rows, which are mended if ``write``.

    Args:
        path: The file.
        name: What messages call it.
        write: Whether to.
    """
    text = path.read_text()
    problems = []

    def renewed(match: re.Match[str]) -> str:
        start, source, row, old = match.groups()
        try:
            new = _metrics(source, row, [part.partition(":")[0].strip() for part in old.split(",")])
        except (FigureError, BeyondDriveError) as error:
            problems.append(f"{name}: {error}")
            return match.group()
        if new != old:
            problems.append(f"{name}: {source} | {row}: has {old}\nbut the scores give {new}")
        return f"{start}{new}}}"

    new_text = RESULT.sub(renewed, text)
    if (others := text.count("Source:") - len(RESULT.findall(text))) > 0:
        problems.append(f'{name}: {others} not as Source: "TABLE PART | ROW" with Metrics in the next line')
    if write and new_text != text:
        write_atomically(path, new_text.encode())
    return problems


def _metrics(source: str, row_name: str, names: Sequence[str]) -> str:
    """Figures of a row to one decimal, as ``NC: 92.1, PDMS: 76.6``."""
    row, score = row_of(source, row_name), scores_of(source).columns[-1]
    return ", ".join(f"{name}: {figure(row, 'score' if name == score else name, 1)}" for name in names)
