"""The account of a split: how many scenes it should have, and why those that are missing are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from beyonddrive.datasets.navsim.scene_filter import SceneFilter


class Place(NamedTuple):
    """A scene that a split should have; ``reason`` says why it has not, and is empty if it has.

    ``token`` is empty for a whole log that is lost, where nobody knows which scenes it would have had.
    """

    token: str
    log_name: str
    reason: str = ""


@dataclass(frozen=True)
class SplitAccount:
    """What there is of a split, and what is missing.

    Attributes:
        num_found: Scenes that can be used.
        lost_scenes: Token of a scene that should be there -> why it is not.
        lost_logs: Name of a log that should be there -> why it cannot be read; only where nobody knows which
            scenes it would have had, because the scene filter has no tokens.
    """

    num_found: int
    lost_scenes: Mapping[str, str] = field(default_factory=dict)
    lost_logs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, places: Iterable[Place]) -> SplitAccount:
        """The account of a split, or of a part of one, whose scenes are these."""
        places = list(places)
        lost = [place for place in places if place.reason]
        return cls(
            len(places) - len(lost),
            {place.token: place.reason for place in lost if place.token},
            {place.log_name: place.reason for place in lost if not place.token},
        )

    @property
    def lost(self) -> dict[str, str]:
        """Token of each lost scene, and name of each lost log, with the reason."""
        return {**self.lost_scenes, **self.lost_logs}

    @property
    def num_expected(self) -> int:
        """Scenes that there should be; at least so many if :attr:`lost_logs` is not empty, a log for one."""
        return self.num_found + len(self.lost_scenes) + len(self.lost_logs)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.lost_scenes and not self.lost_logs

    def __str__(self) -> str:
        """The share that is there, as a figure carries it.

        >>> str(SplitAccount(4, lost_scenes={"a": "no image"}))
        '4 of 5 scenes'
        >>> str(SplitAccount(4, lost_logs={"log": "truncated"}))
        '4 scenes, without those of 1 log(s) that cannot be read'
        """
        total = self.num_found + len(self.lost_scenes)
        known = (
            f"{self.num_found} scenes" if total == self.num_found else f"{self.num_found} of {total} scenes"
        )
        if self.lost_logs:
            return f"{known}, without those of {len(self.lost_logs)} log(s) that cannot be read"
        return known


def places_of(
    scene_filter: SceneFilter,
    scenes: Sequence[tuple[str, str]],
    failures: Mapping[str, str] | None = None,
    lost_logs: Mapping[str, str] | None = None,
) -> list[Place]:
    """All scenes that a split should have, in its order, at most ``scene_filter.max_scenes``.

    A lost log stands where its name puts it: for the tokens of the filter that were not found, all of them
    at the first lost log, or else as one place of its own. Tokens that are in no log stand at the end.

    Args:
        scene_filter: What was asked for.
        scenes: Token and log of each scene that was found, log by log in time order.
        failures: Tokens of those that cannot be used, with the reason.
        lost_logs: Logs that are absent or cannot be read, with the reason.

    >>> places_of(SceneFilter(tokens=["a", "b"]), [("a", "log")])[1].reason
    'it is the current frame of no window of the split; check split, frame_interval and log_names'
    >>> [place.log_name for place in places_of(SceneFilter(), [("a", "1"), ("b", "3")], None, {"2": "gone"})]
    ['1', '2', '3']
    """
    failures, lost_logs = dict(failures or {}), dict(lost_logs or {})
    places = [Place(token, log_name, failures.get(token, "")) for token, log_name in scenes]
    logs = [place.log_name for place in places]
    limit = scene_filter.max_scenes
    if scene_filter.tokens is None or (limit is not None and len(places) >= limit):
        # (At the limit, tokens that were not found may be in logs that nobody looked at.)
        for name in sorted(lost_logs, reverse=True):
            places.insert(bisect_right(logs, name), Place("", name, lost_logs[name]))
        return places[:limit]
    seen = {place.token for place in places}
    missing = [token for token in dict.fromkeys(scene_filter.tokens) if token not in seen]
    if lost_logs:
        name = min(lost_logs)
        where = bisect_right(logs, name)
        reason = (
            f"it may be in one of {len(lost_logs)} log(s) that cannot be read, such as {name}: "
            f"{lost_logs[name]}"
        )
    else:
        name, where = "", len(places)
        reason = (
            "it is the current frame of no window of the split; check split, frame_interval and log_names"
        )
    places[where:where] = [Place(token, name, reason) for token in missing]
    return places[:limit]
