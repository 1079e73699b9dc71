"""Follow-up scenes of a two-stage evaluation as a data set, to plan for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from beyonddrive.datasets.navsim.account import Place
from beyonddrive.datasets.navsim.follow_ups import SPLIT, FollowUpRoot
from beyonddrive.datasets.navsim.root import NavsimRoot, SceneRef
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim_dataset import DatasetError, NavsimDataset
from beyonddrive.registry import DATASETS


@DATASETS.register_module()
class FollowUpDataset(NavsimDataset):
    """Follow-up scenes, one pickle each: inputs only, because nobody drove in them.

    Args:
        scenes_dir: Folder of the pickles.
        sensor_dir: Folder that their camera paths are relative to; None if no sensor is read.
        tokens: Scenes, in this order; all of the folder if None.
        feature_pipeline: As for :class:`NavsimDataset`; what makes targets is left out.
        pipeline: Likewise.
        inputs_only: Only true.
        lazy_init: Look at nothing on disk until the first access.

    Raises:
        DatasetError: If there are no scenes, or ``inputs_only`` is false.
    """

    config_parts: ClassVar[Mapping[str, Collection[str]]] = {}

    def __init__(
        self,
        scenes_dir: str | Path,
        sensor_dir: str | Path | None = None,
        tokens: Sequence[str] | None = None,
        feature_pipeline: Sequence[Mapping[str, Any]] = (),
        pipeline: Sequence[Mapping[str, Any]] = (),
        inputs_only: bool = True,
        lazy_init: bool = False,
    ) -> None:
        if not inputs_only:
            raise DatasetError(
                "FollowUpDataset: inputs_only must be true: there are no targets in its scenes"
            )
        self.scenes_dir = Path(scenes_dir)
        self.sensor_dir = None if sensor_dir is None else Path(sensor_dir)
        wanted = SceneFilter(num_future_frames=0, frame_interval=1, tokens=tokens).to_dict()
        super().__init__(
            data_root=scenes_dir,
            split=SPLIT,
            scene_filter=wanted,
            feature_pipeline=feature_pipeline,
            pipeline=pipeline,
            inputs_only=True,
            lazy_init=lazy_init,
        )

    @property
    def root(self) -> NavsimRoot:
        """The folder, opened at first use."""
        if self._root is None:
            self._root = FollowUpRoot(self.scenes_dir, self.sensor_dir)
        return self._root

    @property
    def _where(self) -> Path:
        return self.scenes_dir

    def _take(self, places: list[Place], found: Sequence[SceneRef | str]) -> None:
        lost = self.root.lost_scenes if isinstance(self.root, FollowUpRoot) else {}
        reasons = [place._replace(reason=lost.get(place.token, place.reason)) for place in places]
        super()._take(reasons, found)
