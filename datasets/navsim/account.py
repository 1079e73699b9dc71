"""The account of a split: how many scenes it should have, and why those that are missing are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from beyonddrive.datasets.navsim.scene_filter import SceneFilter


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


def account_of(
    scene_filter: SceneFilter,
    found: Collection[str],
    failures: Mapping[str, str] | None = None,
    lost_logs: Mapping[str, str] | None = None,
) -> SplitAccount:
    """Compare what was found of a split with what its filter asks for, once all logs have been gone through.

    Args:
        scene_filter: What was asked for.
        found: Tokens of the scenes that can be used.
        failures: Tokens of scenes that were found but cannot be used, with the reason.
        lost_logs: Logs that are absent or cannot be read, with the reason.

    >>> account_of(SceneFilter(tokens=["a", "b"]), ["a"]).lost
    {'b': 'it is the current frame of no window of the split; check split, frame_interval and log_names'}
    """
    failures, lost_logs = dict(failures or {}), dict(lost_logs or {})
    seen = {*found, *failures}
    limit = scene_filter.max_scenes
    if limit is not None and len(seen) >= limit:
        return SplitAccount(len(found), failures)
    if scene_filter.tokens is None:
        return SplitAccount(len(found), failures, lost_logs)
    missing = [token for token in dict.fromkeys(scene_filter.tokens) if token not in seen]
    if limit is not None:
        missing = missing[: limit - len(seen)]
    if lost_logs:
        name, why = next(iter(lost_logs.items()))
        reason = f"it may be in one of {len(lost_logs)} log(s) that cannot be read, such as {name}: {why}"
    else:
        reason = (
            "it is the current frame of no window of the split; check split, frame_interval and log_names"
        )
    return SplitAccount(len(found), {**failures, **dict.fromkeys(missing, reason)})
