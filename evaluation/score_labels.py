"""Which score a number is: the named bases, and the label that every file of scores carries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from beyonddrive.structures.digests import digest_of_lines
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import SCORER_VERSION

HumanFilter = Literal["none", "on", "columns", "off"]
"""``columns`` shows filtered sub-scores, but a score of unfiltered ones, as NAVSIM v2 did before its fix."""
Traffic = Literal["logged", "reactive"]
_SEPARATOR = "; "


class LabelError(BeyondDriveError, ValueError):
    """A label cannot be read, or there is no such basis; the message names it and the remedy."""


@dataclass(frozen=True)
class Basis:
    """A way to score one plan per scene.

    Attributes:
        name: On command lines and in files.
        score: ``PDMS`` of NAVSIM v1.1 or ``EPDMS`` of NAVSIM v2.
        stages: 1, or 2 with follow-up scenes.
        traffic: As it was logged, or reacting to the plan.
        human_filter: What the human driver fails as well is charged (``off``) or not (``on``).
        meaning: What it corresponds to, for readers.
    """

    name: str
    score: Literal["PDMS", "EPDMS"]
    stages: Literal[1, 2]
    traffic: Traffic
    human_filter: HumanFilter
    meaning: str

    @property
    def prefix(self) -> str:
        """Prefix of the figures of a run."""
        return self.name.replace("-", "_")


BASES: Mapping[str, Basis] = {
    basis.name: basis
    for basis in (
        Basis("pdms", "PDMS", 1, "logged", "none", "NAVSIM v1.1, navtest tables"),
        Basis("epdms", "EPDMS", 1, "logged", "on", "NAVSIM v2, one-stage script as it is now"),
        Basis(
            "epdms-unfixed",
            "EPDMS",
            1,
            "logged",
            "columns",
            "one-stage script before the fix of the human filter: filtered columns, unfiltered score",
        ),
        Basis("epdms-unfiltered", "EPDMS", 1, "logged", "off", "a scorer that is built with its defaults"),
        Basis("epdms-reactive", "EPDMS", 1, "reactive", "on", "one-stage script, traffic_agents=reactive"),
        Basis("epdms-reactive-unfiltered", "EPDMS", 1, "reactive", "off", "the same without human filter"),
        Basis("two-stage", "EPDMS", 2, "reactive", "on", "NAVSIM v2 leaderboards: navhard, warmup, private"),
        Basis(
            "two-stage-unfixed",
            "EPDMS",
            2,
            "reactive",
            "columns",
            "two-stage script before the fix of the human filter",
        ),
        Basis("two-stage-unfiltered", "EPDMS", 2, "reactive", "off", "two stages without human filter"),
        Basis("two-stage-logged", "EPDMS", 2, "logged", "on", "no official configuration: traffic replayed"),
    )
}
"""Bases by name, in the order of a table."""
ALL = "all"


def parse_bases(text: str) -> tuple[Basis, ...]:
    """Bases of a list such as ``epdms,two-stage``, or ``all``, in the order of :data:`BASES`.

    Raises:
        LabelError: If there is no such basis.

    >>> [basis.name for basis in parse_bases("two-stage,pdms")]
    ['pdms', 'two-stage']
    """
    names = {name.strip() for name in text.split(",")}
    if unknown := sorted(names - {ALL, *BASES}):
        raise LabelError(f"no basis {', '.join(map(repr, unknown))}; there are {', '.join(BASES)}, and {ALL}")
    return tuple(basis for basis in BASES.values() if ALL in names or basis.name in names)


@dataclass(frozen=True)
class ScoreLabel:
    """What a figure is of: two with different labels do not compare.

    Attributes:
        basis: Name of the basis.
        score: As of the basis.
        stages: As of the basis.
        traffic: As of the basis.
        human_filter: As of the basis.
        progress: ``pair`` as the benchmark has it, or ``pooled`` over the plans of a scene.
        scorer_version: :data:`beyonddrive.structures.plan.SCORER_VERSION` of whoever scored.
        num_scenes: Scenes that have a score.
        scenes: :func:`~beyonddrive.structures.digests.digest_of_lines` of their tokens.
        data: Digest of what their logs hold; empty if nobody told it.
    """

    basis: str
    score: str
    stages: int
    traffic: str
    human_filter: str
    progress: str
    scorer_version: int
    num_scenes: int
    scenes: str
    data: str = ""

    @classmethod
    def of(cls, basis: Basis, tokens: Iterable[str], progress: str = "pair", data: str = "") -> ScoreLabel:
        """The label of scores that are made now."""
        scored = list(tokens)
        return cls(
            basis.name,
            basis.score,
            basis.stages,
            basis.traffic,
            basis.human_filter,
            progress,
            SCORER_VERSION,
            len(scored),
            digest_of_lines(scored),
            data,
        )

    def of_part(self, tokens: Collection[str]) -> ScoreLabel:
        """The label of some of the scenes, whose logs are not told apart from here; of all of them itself."""
        if len(tokens) == self.num_scenes:
            return self
        return replace(self, num_scenes=len(tokens), scenes=digest_of_lines(tokens), data="")

    def __str__(self) -> str:
        """For readers.

        >>> print(ScoreLabel.of(BASES["epdms"], ["a"]))
        epdms: EPDMS, 1 stage, logged traffic, human filter on, scorer 1, 1 scenes 40f89e395b66422f
        """
        stages = f"{self.stages} stage{'s' if self.stages > 1 else ''}"
        filtered = "" if self.human_filter == "none" else f", human filter {self.human_filter}"
        progress = "" if self.progress == "pair" else f", {self.progress} progress"
        return (
            f"{self.basis}: {self.score}, {stages}, {self.traffic} traffic{filtered}{progress}, "
            f"scorer {self.scorer_version}, {self.num_scenes} scenes {self.scenes}"
        )

    def differences(self, other: ScoreLabel) -> list[str]:
        """What of two labels differs, but for the scenes, such as ``traffic: logged, reactive``.

        The data are compared where both tell of them and the scenes are the same: others have other logs.
        """
        left, right = asdict(self), asdict(other)
        passed = {"num_scenes", "scenes"}
        if self.scenes != other.scenes or not (self.data and other.data):
            passed.add("data")
        return [
            f"{key}: {left[key]}, {right[key]}"
            for key in left
            if key not in passed and left[key] != right[key]
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; without the data if nobody told of them."""
        return {key: value for key, value in asdict(self).items() if key != "data" or value}

    def to_text(self) -> str:
        """As one cell of a table; :meth:`parse` reads it."""
        return _SEPARATOR.join(f"{key}={value}" for key, value in self.to_dict().items())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoreLabel:
        """Inverse of :meth:`to_dict`.

        Raises:
            LabelError: If something is missing or is no number where one is wanted.
        """
        types = {field.name: int if field.type == "int" else str for field in fields(cls)}
        try:
            found = {"data": "", **values}
            read: dict[str, Any] = {name: kind(found[name]) for name, kind in types.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise LabelError(f"a label of scores that is damaged ({error!r}); score again") from error
        return cls(**read)

    @classmethod
    def parse(cls, text: str) -> ScoreLabel:
        """Inverse of :meth:`to_text`.

        Raises:
            LabelError: If it is damaged.

        >>> label = ScoreLabel.of(BASES["pdms"], ["a"])
        >>> ScoreLabel.parse(label.to_text()) == label
        True
        """
        return cls.from_dict(dict(part.partition("=")[::2] for part in text.split(_SEPARATOR)))
