"""Scenes of a two-stage evaluation as data sets, to plan for: follow-up scenes, and those of both stages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from mmengine.dataset import ConcatDataset

from beyonddrive.datasets.navsim.account import Place
from beyonddrive.datasets.navsim.follow_ups import SPLIT, FollowUpRoot
from beyonddrive.datasets.navsim.root import NavsimRoot, SceneRef
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
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

    config_parts: ClassVar[Mapping[str, Collection[str] | type]] = {}

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


@DATASETS.register_module()
class TwoStageDataset(ConcatDataset):
    """Scenes of both stages of a two-stage split: the original ones, then the follow-up scenes.

    Inputs only: nothing is learnt from scenes that a planner is judged in. It takes the place of a
    :class:`NavsimDataset` in a validation or a test, whose other settings may stay.

    Args:
        data_root: Folder with ``navsim_logs`` and ``maps``, and ``sensor_blobs`` if sensors are read.
        two_stage: NAVSIM's ``train_test_split/<name>.yaml``, the table of pairs.
        synthetic_scenes: Folder of the follow-up scenes, ``synthetic_scene_pickles``.
        synthetic_sensors: Folder that their camera paths are relative to; None if no sensor is read.
        split: Split of the logs of the original scenes; that of the split file if None.
        maps_root: Folder of the maps; ``data_root/maps`` if None.
        feature_pipeline: As for :class:`NavsimDataset`; what makes targets is left out.
        pipeline: Likewise.
        scene_filter: Only None: the split file says which scenes.
        cache_dir: Only None: inputs are made anew.
        inputs_only: Only true.
        negatives: Only None: nothing is learnt.
        indices: Only None: a score of two stages needs all scenes.
        allow_lost: Only false, for the same reason.
        lazy_init: Look at nothing on disk until the first access.

    Raises:
        DatasetError: If there are no scenes, or one of these settings is another.
        TwoStageSplitError: If the split file is missing or wrong.
    """

    def __init__(
        self,
        data_root: str | Path,
        two_stage: str | Path,
        synthetic_scenes: str | Path,
        synthetic_sensors: str | Path | None = None,
        split: str | None = None,
        maps_root: str | Path | None = None,
        feature_pipeline: Sequence[Mapping[str, Any]] = (),
        pipeline: Sequence[Mapping[str, Any]] = (),
        scene_filter: None = None,
        cache_dir: None = None,
        inputs_only: bool = True,
        negatives: None = None,
        indices: None = None,
        allow_lost: bool = False,
        lazy_init: bool = False,
    ) -> None:
        for name, value, reason in (
            ("scene_filter", scene_filter, "two_stage says which scenes"),
            ("cache_dir", cache_dir, "follow-up scenes have no feature cache"),
            ("negatives", negatives, "nothing is learnt from its scenes"),
            ("indices", indices, "with a scene missing there is no score of two stages"),
        ):
            if value is not None:
                raise DatasetError(f"TwoStageDataset: {name}={value!r}: {reason}; set {name}=None")
        if allow_lost:
            raise DatasetError(
                "TwoStageDataset: allow_lost=True: with a scene missing there is no score of two stages; set "
                "allow_lost=False"
            )
        if not inputs_only:
            raise DatasetError("TwoStageDataset: inputs_only must be true: nothing is learnt from its scenes")
        self.data_root, self.maps_root = Path(data_root), maps_root
        self.two_stage = Path(two_stage)
        self.synthetic_scenes, self.synthetic_sensors = synthetic_scenes, synthetic_sensors
        self._steps: dict[str, Any] = {"feature_pipeline": feature_pipeline, "pipeline": pipeline}
        self._split = split
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @cached_property
    def table(self) -> TwoStageSplit:
        """The split file, read at first use."""
        return TwoStageSplit.read(self.two_stage)

    @property
    def split(self) -> str:
        """Split of the logs of the original scenes."""
        return self._split or self.table.data_split

    @property
    def metainfo(self) -> dict[str, Any]:
        """What the data set is, as :class:`NavsimDataset` has it."""
        return {"dataset": "navsim"}

    @cached_property
    def datasets(self) -> list[NavsimDataset]:
        """The scenes of each stage."""
        first = NavsimDataset(
            self.data_root,
            self.split,
            self.maps_root,
            self.table.scene_filter.to_dict(),
            inputs_only=True,
            lazy_init=True,
            **self._steps,
        )
        second = FollowUpDataset(
            self.synthetic_scenes,
            self.synthetic_sensors,
            self.table.second,
            lazy_init=True,
            **self._steps,
        )
        return [first, second]
