"""Paired differences between the planners of a report, and what they are worth: each row is one training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beyonddrive.engine.text_tables import markdown_table
from beyonddrive.evaluation.score_results import Results, ResultsError, shared_scenes
from beyonddrive.evaluation.statistics.intervals import Estimate, paired_difference
from beyonddrive.visualization.sweep_tables import interval_text, signed

OVER_SCENES = (
    "Each row is one training with one seed, so the intervals are over scenes alone; a second training may "
    "differ by more (docs/results.md)."
)


@dataclass(frozen=True)
class Difference:
    """How much higher one planner scores than another, scene by scene.

    Attributes:
        label: Name of the planner.
        baseline: Name of the other.
        score: Name of the score.
        found: In points, with an interval over scenes.
    """

    label: str
    baseline: str
    score: str
    found: Estimate

    @property
    def name(self) -> str:
        """Which difference it is."""
        return f"{self.label} minus {self.baseline}"

    @property
    def interval(self) -> str:
        """The interval for a reader; a dash of a single scene, which has none."""
        return interval_text(self.found.interval)


def paired_differences(results: Sequence[Results], pairs: Sequence[tuple[str, str]]) -> list[Difference]:
    """Compare planners by name with others, matched by token, on the scenes that all results have.

    Args:
        results: One per planner, that compare as ``tables.summarise`` asks.
        pairs: A planner and the one that it is compared with, each.

    Raises:
        ResultsError: If a name is not there or is both of a pair, or scores are of two stages, whose scenes
            do not count alike.
    """
    named = {result.label: result for result in results}
    tokens = shared_scenes(results) if results else []
    found = []
    for pair in pairs:
        for name in pair:
            if name not in named:
                raise ResultsError(f"no row {name!r} to compare; there is {'; '.join(named) or 'none'}")
            if named[name].halves:
                raise ResultsError(f"{named[name].path}: has two stages; differences by scene are of one")
        if pair[0] == pair[1]:
            raise ResultsError(f"row {pair[0]!r} is compared with itself; name another one after the =")
        kind = named[pair[0]].kind
        score = kind.shown[0]
        column = kind.columns.index(score)
        ours, theirs = (
            100.0 * np.array([[named[name].values[token][column] for token in tokens]]) for name in pair
        )  # (1, T) each
        found.append(Difference(*pair, score, paired_difference(ours, theirs)))
    return found


def remarks_on(differences: Sequence[Difference], sight: Difference | None) -> list[str]:
    """What a reader has to know of differences, in sentences.

    Args:
        differences: All that are shown, that of sight among them.
        sight: Of a planner that sees from one that does not: where it is not above 0, a benchmark cannot show
            what a loss does to what is seen.
    """
    remarks = [OVER_SCENES] if differences else []
    if sight is None:
        return remarks
    told = f"{sight.name} is {signed(sight.found.mean)} {sight.score} ({sight.interval})"
    if sight.found.is_above_zero:
        return [*remarks, f"Sight pays at this size: {told}, above 0."]
    return [
        *remarks,
        f"Sight does not pay at this size: {told}, not above 0. The other differences mean nothing.",
    ]


def differences_markdown(differences: Sequence[Difference]) -> str:
    """Differences as a table in Markdown; empty without any."""
    if not differences:
        return ""
    header = ["paired difference", differences[0].score, "95 % over scenes", "scenes"]
    rows = [[d.name, signed(d.found.mean), d.interval, str(d.found.num_scenes)] for d in differences]
    return markdown_table(header, rows).rstrip()
