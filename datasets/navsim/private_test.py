"""Scenes of NAVSIM's private test of two stages: groups of five frames, two scenes each (SUBMISSION, 2).

The table of pairs is not public, and neither annotations nor maps come with the files: they can be planned
for and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from beyonddrive.datasets.navsim.logs import Frame, LogError, read_log
from beyonddrive.datasets.navsim.root import NavsimRoot, NavsimRootError, SceneRef
from beyonddrive.datasets.navsim.scene import HISTORY
from beyonddrive.datasets.navsim.scene_filter import SceneFilter

GROUP = HISTORY + 1
"""Frames of a group: the scene before now, and one frame later the scene now."""


class PrivateTestRoot(NavsimRoot):
    """A folder of pickles whose frames come in groups of five.

    Args:
        folder: Folder of the pickles: of original scenes, where the first file counts, or of follow-ups, with
            one list of five frames per file.
        sensor_dir: Folder that camera paths are relative to; None if no sensor is read.
        follow_ups: Which of the two.

    Raises:
        NavsimRootError: If there is no such folder, or no pickle in it.
    """

    def __init__(self, folder: Path, sensor_dir: Path | None = None, follow_ups: bool = False) -> None:
        self.root = Path(folder)
        self.sensor_dir = None if sensor_dir is None else Path(sensor_dir)
        self.follow_ups = follow_ups
        self.maps_root = self.root / "maps"
        self.problems: list[str] = []
        self.lost_logs: dict[str, str] = {}
        self.read_maps: set[Path] = set()
        self._last_log = None
        if not self.log_paths(""):
            kind = "follow-up scenes" if follow_ups else "original scenes, one log of all frames"
            raise NavsimRootError(f"{self.root}: no pickle in this folder; give that of the {kind}")

    def splits(self) -> list[str]:
        """The one split."""
        return [self.root.name]

    def log_paths(self, split: str) -> list[Path]:
        """The files: the first one of original scenes, as the official loader takes it."""
        paths = sorted(self.root.glob("*.pkl"))
        return paths if self.follow_ups else paths[:1]

    def sensor_root(self, split: str) -> Path:
        """Folder to which camera paths are relative.

        Raises:
            NavsimRootError: If it was not given.
        """
        if self.sensor_dir is None:
            raise NavsimRootError(
                f"{self.root}: sensor files are needed; say where they are (--synthetic-sensors)"
            )
        return self.sensor_dir

    def refs(self, split: str, scene_filter: SceneFilter | None = None) -> Iterator[SceneRef]:
        """Where the scenes are that the filter's tokens name; all without any."""
        for path in self.log_paths(split):
            yield from self.log_refs(path, scene_filter or SceneFilter(num_future_frames=0))

    def log_refs(self, path: Path, scene_filter: SceneFilter) -> list[SceneRef]:
        """Where the scenes of one file are; none, and a line in :attr:`problems`, if it cannot be read."""
        frames = self._frames_if_readable(path)
        wanted = None if scene_filter.tokens is None else set(scene_filter.tokens)
        found = []
        for start in range(0, len(frames), GROUP):
            before, now = (
                SceneRef(frames[first + HISTORY - 1]["token"], path, first, HISTORY)
                for first in (start, start + 1)
            )
            if self.follow_ups:  # (the official filter looks at the first of the two only)
                found += [before, now] if wanted is None or before.token in wanted else []
            else:
                found += [ref for ref in (before, now) if wanted is None or ref.token in wanted]
        return found

    def _frames(self, path: Path) -> list[Frame]:
        if self._last_log is None or self._last_log[0] != path:
            self._last_log = None
            self._last_log = (path, groups_of_five(path, is_one=self.follow_ups))
        return self._last_log[1]


def groups_of_five(path: Path, is_one: bool = False) -> list[Frame]:
    """Frames of a file, group after group, each in the order of ``frame_idx``; other groups are left out.

    Args:
        path: A list of frames. They are of a group if they have the same ``scene_token``.
        is_one: The file is one group, in its own order, and has to have five frames.

    Raises:
        LogError: If the file is damaged, a frame has no ``frame_idx``, a group is not in time order, or there
            is no group of five.
    """
    frames = read_log(path, in_time_order=False)
    groups: dict[str, list[Frame]] = {}
    for index, frame in enumerate(frames):
        if not is_one and not isinstance(frame.get("frame_idx"), (int, np.integer)):
            raise LogError(f"{path}: frame {index}: key 'frame_idx': missing or no whole number")
        groups.setdefault("" if is_one else frame["scene_token"], []).append(frame)
    kept: list[Frame] = []
    for group in groups.values():
        if len(group) != GROUP:
            continue
        if not is_one:
            group.sort(key=lambda frame: int(frame["frame_idx"]))
        for earlier, later in pairwise(group):
            if int(later["timestamp"]) <= int(earlier["timestamp"]):
                raise LogError(
                    f"{path}: frame {later['token']} is not after frame {earlier['token']} of its group; get "
                    f"the file again"
                )
        kept += group
    if not kept:
        sizes = sorted({len(group) for group in groups.values()})
        raise LogError(
            f"{path}: has no group of {GROUP} frames, but of {', '.join(map(str, sizes)) or 'none'}: it is "
            f"not of the private test"
        )
    return kept
