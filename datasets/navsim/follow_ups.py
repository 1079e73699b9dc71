"""Follow-up scenes as a data root, so that whatever reads scenes of logs reads them too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from beyonddrive.datasets.navsim.root import NavsimRoot, NavsimRootError, SceneRef
from beyonddrive.datasets.navsim.scene import HISTORY, Scene, SceneError
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.synthetic import TOKEN_LENGTH, read_synthetic_scene

SPLIT = "synthetic"
"""What the split of follow-up scenes is called."""


class FollowUpRoot(NavsimRoot):
    """Follow-up scenes in a folder, ``<token>.pkl`` each, and their sensor files.

    A window is a file (EPDMS_TWO_STAGE, section 1.3). One that is missing does not stop the others: it is in
    :attr:`lost_scenes`.

    Args:
        scenes_dir: Folder of the pickles.
        sensor_dir: Folder that their camera paths are relative to; none if no sensor is read.
        maps_root: Folder of the maps; none if none is read.

    Attributes:
        lost_scenes: Token of each scene that is not there -> why; grows while scenes are looked for.

    Raises:
        NavsimRootError: If there is no such folder.
    """

    def __init__(
        self, scenes_dir: Path, sensor_dir: Path | None = None, maps_root: Path | None = None
    ) -> None:
        self.root = self.scenes_dir = Path(scenes_dir)
        self.sensor_dir = None if sensor_dir is None else Path(sensor_dir)
        self.maps_root = self.root / "maps" if maps_root is None else Path(maps_root)
        self.problems: list[str] = []
        self.lost_logs: dict[str, str] = {}
        self.lost_scenes: dict[str, str] = {}
        self.read_maps: set[Path] = set()
        self._last_log = None
        if not self.root.is_dir():
            raise NavsimRootError(
                f"{self.root}: no such folder; give that of the follow-up scenes (synthetic_scene_pickles)"
            )

    def forget_problems(self) -> None:
        """Start anew, before another pass."""
        super().forget_problems()
        self.lost_scenes.clear()

    def splits(self) -> list[str]:
        """The one split."""
        return [SPLIT]

    def log_paths(self, split: str) -> list[Path]:
        """Files of the scenes."""
        return sorted(self.root.glob("*.pkl"))

    def path_of(self, token: str) -> Path:
        """File of a scene."""
        return self.root / f"{token}.pkl"

    def paths_of(self, tokens: Iterable[str]) -> list[Path]:
        """Files of those of some scenes that are follow-ups, as the length of their tokens tells."""
        return [self.path_of(token) for token in tokens if len(token) == TOKEN_LENGTH]

    def sensor_root(self, split: str) -> Path:
        """Folder to which camera paths are relative.

        Raises:
            NavsimRootError: If it was not given.
        """
        if self.sensor_dir is None:
            raise NavsimRootError(
                f"{self.root}: sensor files of follow-up scenes are needed; say where they are "
                f"(--synthetic-sensors)"
            )
        return self.sensor_dir

    def refs(self, split: str = SPLIT, scene_filter: SceneFilter | None = None) -> Iterator[SceneRef]:
        """Where the scenes are that the filter's tokens name; all of the folder without any."""
        scene_filter = scene_filter or SceneFilter(num_future_frames=0)
        tokens: Sequence[str] | None = scene_filter.tokens
        if tokens is None:
            tokens = [path.stem for path in self.log_paths(split)]
        for token in tokens[: scene_filter.max_scenes]:
            path = self.path_of(token)
            if Path(token).name == token and path.is_file():
                yield SceneRef(token, path, 0, HISTORY)
            else:
                self.lost_scenes[token] = f"{path}: there is no such follow-up scene"

    def load(self, ref: SceneRef, split: str | None = None) -> Scene:
        """Read one scene.

        Raises:
            SceneError: If it is damaged, or another one than its file name says.
        """
        scene = read_synthetic_scene(ref.log_path)
        if scene.token != ref.token:
            raise SceneError(f"{ref.log_path}: holds scene {scene.token}; give the file its own name")
        return scene
