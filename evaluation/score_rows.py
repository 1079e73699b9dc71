"""Scored scenes of one planner as csv text, with the label of what the scores are."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.synthetic import TOKEN_LENGTH
from beyonddrive.evaluation.score_labels import LabelError, ScoreLabel

LABEL = "label"
"""Column of the label; the same in every row, so that rows may be sorted."""
TWO_STAGE = ("group", "half", "weight")
"""Columns of two stages: which group, ``now`` or ``previous``, and the weight within that half."""


class Half(NamedTuple):
    """Place of a scene of two stages; the weight is within the half, 1 for the original scene."""

    group: str
    half: str
    weight: float


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


def two_stage_means(
    values: Mapping[str, NDArray[np.float64]], halves: Mapping[str, Half]
) -> NDArray[np.float64]:
    """The result of a run of two stages from its rows: mean over groups of products per half group.

    Args:
        values: Scene -> (C,) scores, of whole groups.
        halves: Scene -> its place. The original scene of a half is the one whose token is not as long as
            those of follow-up scenes.

    Raises:
        LabelError: If a half has not one original scene and follow-up scenes with weights.
    """
    parts: dict[tuple[str, str], list[str]] = {}
    for token in values:
        place = halves[token]
        parts.setdefault((place.group, place.half), []).append(token)
    products = []
    for (group, half), tokens in parts.items():
        second = [token for token in tokens if len(token) == TOKEN_LENGTH]
        first = [token for token in tokens if len(token) != TOKEN_LENGTH]
        weights = np.array([halves[token].weight for token in second])
        if len(first) != 1 or not weights.sum() > 0 or not (weights >= 0).all():
            raise LabelError(
                f"group {group}, half {half}: has {len(first)} original and {len(second)} follow-up scenes, "
                f"wanted 1 and some, with weights; use the file as it was written"
            )
        follow_ups = weights @ np.array([values[token] for token in second]) / weights.sum()
        products.append(values[first[0]] * follow_ups)
    means: NDArray[np.float64] = np.mean(products, axis=0)
    return means
