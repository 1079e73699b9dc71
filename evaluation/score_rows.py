"""Scored scenes of one planner as csv text, with the label of what the scores are."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.score_labels import ScoreLabel

LABEL = "label"
"""Column of the label; the same in every row, so that rows may be sorted."""
TWO_STAGE = ("group", "half", "weight")
"""Columns of two stages: which group, ``now`` or ``previous``, and the weight within that half."""


class ScoredScene(NamedTuple):
    """A scene of a file of results.

    Attributes:
        token: The scene; empty for a whole log that is lost.
        log_name: Its log.
        values: (C,) scores in [0, 1], NaN where it has none; None for a scene without scores.
        reason: Why there are none.
        group: Of two stages: the group.
        half: Of two stages: which half of the group.
        weight: Of two stages: within its half; 1 for an original scene.
        oracle: Best score among the proposals of the planner, NaN without.
    """

    token: str
    log_name: str
    values: NDArray[np.float64] | None
    reason: str = ""
    group: str = ""
    half: str = ""
    weight: float = float("nan")
    oracle: float = float("nan")


def scenes_to_csv(
    scenes: Sequence[ScoredScene], columns: Sequence[str], label: ScoreLabel | None = None
) -> str:
    """Scenes as csv text: token, log, scores in [0, 1], oracle of the last, reason, label; empty for none.

    >>> print(scenes_to_csv([ScoredScene('a', 'log', np.ones(2))], ('NC', 'PDMS')))
    token,log,NC,PDMS,oracle_PDMS,error
    a,log,1.0,1.0,,
    <BLANKLINE>
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    grouped = TWO_STAGE if any(scene.group for scene in scenes) else ()
    labelled = () if label is None else (LABEL,)
    writer.writerow(["token", "log", *columns, f"oracle_{columns[-1]}", "error", *grouped, *labelled])
    text = () if label is None else (label.to_text(),)
    for scene in scenes:
        numbers = np.full(len(columns), np.nan) if scene.values is None else scene.values
        cells = [_cell(number) for number in (*numbers, scene.oracle)]
        more = (scene.group, scene.half, _cell(scene.weight)) if grouped else ()
        writer.writerow([scene.token, scene.log_name, *cells, scene.reason, *more, *text])
    return buffer.getvalue()


def _cell(number: float) -> str:
    return "" if np.isnan(number) else repr(float(number))
