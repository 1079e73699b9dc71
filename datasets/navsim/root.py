"""A data root in NAVSIM's layout: which splits, logs and scenes it holds, and where its files are."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap, open_map
from beyonddrive.datasets.navsim.logs import Frame, LogError, read_log
from beyonddrive.datasets.navsim.scene import FUTURE, HISTORY, Scene, SceneError
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.structures.errors import BeyondDriveError


class NavsimRootError(BeyondDriveError, ValueError):
    """The data root has no such split, or is not a data root; the message names the folder and the remedy."""


@dataclass(frozen=True)
class SceneRef:
    """Where a scene is: enough to read it, small enough to keep 100,000 of them."""

    token: str
    log_path: Path
    first_frame: int
    num_frames: int


class NavsimRoot:
    """Logs, sensor files and maps below one folder (NAVSIM_FORMAT, section 1).

    ``navsim_logs/<split>/<log_name>.pkl``, ``sensor_blobs/<split>/...``, ``maps/``. One log at a time is held
    in memory, however many scenes are asked for. A log that cannot be read does not stop the others: what is
    wrong with it is added to :attr:`problems`.

    Args:
        root: The folder.
        maps_root: Folder of the maps; ``root/maps`` if None.

    Attributes:
        problems: What was passed over, each with file, reason and remedy; grows while scenes are read.
        read_maps: Files of the maps that were asked for.
        lost_logs: Name of each log that is absent or cannot be read -> why; grows likewise.

    Raises:
        NavsimRootError: If there is no ``navsim_logs`` in ``root``.
    """

    def __init__(self, root: Path, maps_root: Path | None = None) -> None:
        self.root = Path(root)
        self.maps_root = self.root / "maps" if maps_root is None else Path(maps_root)
        self.problems: list[str] = []
        self.lost_logs: dict[str, str] = {}
        self.read_maps: set[Path] = set()
        if not (self.root / "navsim_logs").is_dir():
            raise NavsimRootError(
                f"{self.root}: no folder navsim_logs in it; give the folder that holds navsim_logs, "
                f"sensor_blobs and maps"
            )
        self._last_log: tuple[Path, list[Frame]] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_last_log": None}

    def forget_problems(self) -> None:
        """Start :attr:`problems` and :attr:`lost_logs` anew, before another pass over the logs."""
        self.problems.clear()
        self.lost_logs.clear()

    def splits(self) -> list[str]:
        """Names of the splits, sorted."""
        return sorted(path.name for path in (self.root / "navsim_logs").iterdir() if path.is_dir())

    def log_paths(self, split: str) -> list[Path]:
        """Logs of a split, sorted by name.

        Raises:
            NavsimRootError: If there is no such split.
        """
        folder = self.root / "navsim_logs" / split
        if not folder.is_dir():
            raise NavsimRootError(f"{folder}: no such split; {self.root} has {self.splits() or 'none'}")
        return sorted(folder.glob("*.pkl"))

    def sensor_root(self, split: str) -> Path:
        """Folder to which camera and LiDAR paths of the split's frames are relative."""
        return self.root / "sensor_blobs" / split

    def map(self, location: str) -> NuPlanMap:
        """The map of a location, opened once per process."""
        nuplan_map = open_map(self.maps_root, location)
        self.read_maps.add(nuplan_map.path)
        return nuplan_map

    # ------------------------------------------------------------------ scenes
    def scenes(self, split: str, scene_filter: SceneFilter | None = None) -> Iterator[Scene]:
        """All scenes of a split that the filter keeps, log by log, in time order.

        Args:
            split: Name of the split.
            scene_filter: Which windows are scenes; None is the default filter.

        Raises:
            NavsimRootError: If there is no such split.
        """
        for ref in self.refs(split, scene_filter):
            yield self.load(ref, split)

    def refs(self, split: str, scene_filter: SceneFilter | None = None) -> Iterator[SceneRef]:
        """As :meth:`scenes`, but only where each scene is."""
        scene_filter = scene_filter or SceneFilter()
        missing = set(scene_filter.tokens or ())
        count = 0
        for path in self.filtered_logs(split, scene_filter):
            for ref in self.log_refs(path, scene_filter):
                yield ref
                missing.discard(ref.token)
                count += 1
                if count == scene_filter.max_scenes:
                    return
        if missing:
            self._report(
                f"split {split}: {len(missing)} tokens of the scene filter are the current frame of no "
                f"window, the first is {min(missing)}; check split, frame_interval and log_names"
            )

    def filtered_logs(self, split: str, scene_filter: SceneFilter) -> list[Path]:
        """Logs of a split that the filter names, sorted; all if it names none."""
        paths = self.log_paths(split)
        if scene_filter.log_names is None:
            return paths
        wanted = set(scene_filter.log_names)
        if missing := wanted.difference(path.stem for path in paths):
            folder = self.root / "navsim_logs" / split
            self.lost_logs |= {
                name: f"{folder / name}.pkl: the scene filter names this log, but it is not there"
                for name in sorted(missing)
            }
            self._report(
                f"split {split}: {len(missing)} of {len(wanted)} logs of the scene filter are not in "
                f"{folder}, the first is {min(missing)}.pkl"
            )
        return [path for path in paths if path.stem in wanted]

    def log_refs(self, path: Path, scene_filter: SceneFilter) -> list[SceneRef]:
        """Where the scenes of one log are; none, and a line in :attr:`problems`, if it cannot be read."""
        frames = self._frames_if_readable(path)
        tokens = None if scene_filter.tokens is None else frozenset(scene_filter.tokens)
        return [
            SceneRef(frames[start + HISTORY - 1]["token"], path, start, scene_filter.num_frames)
            for start in scene_filter.window_starts(len(frames))
            if scene_filter.keeps(frames[start + HISTORY - 1], tokens)
        ]

    def _frames_if_readable(self, path: Path) -> list[Frame]:
        """Frames of a log; none, and a line in :attr:`problems`, if it cannot be read."""
        try:
            return self._frames(path)
        except LogError as error:
            self._report(str(error))
            self.lost_logs[path.stem] = str(error)
            return []

    def load(self, ref: SceneRef, split: str | None = None) -> Scene:
        """Read one scene. The last log stays in memory, so ask in the order of the logs.

        Raises:
            LogError: If the log cannot be read any more, or has changed since.
        """
        frames = self._frames(ref.log_path)[ref.first_frame : ref.first_frame + ref.num_frames]
        if len(frames) < ref.num_frames or frames[HISTORY - 1]["token"] != ref.token:
            raise LogError(
                f"{ref.log_path}: scene {ref.token} is no longer where it was; the log was replaced, "
                f"start again"
            )
        return Scene(frames[HISTORY - 1]["log_name"], split or ref.log_path.parent.name, frames)

    def find(self, split: str, tokens: Collection[str]) -> tuple[dict[str, Scene], dict[str, str]]:
        """Find scenes by the token of their current frame, whatever the frame interval of the split.

        Args:
            split: Name of the split.
            tokens: Any frames of its logs with 3 frames before and 10 after.

        Returns:
            The scenes that exist, and for every other token the reason why it is none, in the order asked.
        """
        wanted = set(tokens)
        scenes: dict[str, Scene] = {}
        reasons: dict[str, str] = {}
        unreadable: list[str] = []
        for path in self.log_paths(split):
            if len(scenes) == len(wanted):  # (one that is cut off here may be whole in another log)
                break
            try:
                frames = self._frames(path)
            except LogError as error:
                unreadable.append(str(error))
                self._report(str(error))
                continue
            for token, scene in scenes_of(frames, path, split, wanted.difference(scenes)):
                if isinstance(scene, Scene):
                    scenes[token] = scene
                else:
                    reasons[token] = str(scene)
        reason = f"no frame of split {split} in {self.root} has this token"
        if unreadable:
            reason += f"; it may be in a log that cannot be read ({len(unreadable)} of them): {unreadable[0]}"
        found = {token: scenes[token] for token in tokens if token in scenes}
        return found, {token: reasons.get(token, reason) for token in tokens if token not in scenes}

    def log_scenes(
        self, path: Path, split: str, tokens: Container[str], future: int = FUTURE
    ) -> Iterator[tuple[str, Scene | SceneError]]:
        """The scenes of one log whose current frames are among the tokens; see :func:`scenes_of`.

        Raises:
            LogError: If the log cannot be read.
        """
        yield from scenes_of(self._frames(path), path, split, tokens, future)

    # ------------------------------------------------------------------ inside
    def _frames(self, path: Path) -> list[Frame]:
        if self._last_log is None or self._last_log[0] != path:
            self._last_log = None
            self._last_log = (path, read_log(path))
        return self._last_log[1]

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def doubled_scene(token: str, first: Path, second: Path) -> str:
    """Why a split that has a scene in two logs is refused: it would count twice in training."""
    return (
        f"scene {token} is in {first} and in {second}: take one of these logs out of the split, or leave it "
        f"out by log_names of the scene filter"
    )


def scenes_of(
    frames: Sequence[Frame], path: Path, split: str, tokens: Container[str], future: int = FUTURE
) -> Iterator[tuple[str, Scene | SceneError]]:
    """Scenes in the frames of a log, whatever the frame interval of the split.

    Args:
        frames: All frames of the log.
        path: Its file, to name it in errors.
        split: The split it is of.
        tokens: Current frames that are asked for.
        future: Frames after now that a scene needs at least; it gets ``FUTURE`` where the log has them.

    Yields:
        Token and scene, or why there is none around that frame.
    """
    for index, frame in enumerate(frames):
        if frame["token"] not in tokens:
            continue
        before, after = index, len(frames) - 1 - index
        if before < HISTORY - 1 or after < future:
            yield (
                frame["token"],
                SceneError(
                    f"frame {index} of {path} has {before} frames before and {after} after it; a scene needs "
                    f"{HISTORY - 1} and {future}"
                ),
            )
        else:
            window = frames[index - HISTORY + 1 : index + FUTURE + 1]
            yield frame["token"], Scene(frame["log_name"], split, window)
