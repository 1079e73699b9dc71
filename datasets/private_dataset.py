"""Both stages of NAVSIM's private test as a data set, to plan for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from beyonddrive.datasets.follow_up_dataset import TwoStageDataset
from beyonddrive.datasets.navsim.private_test import PrivateTestRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.registry import DATASETS


class PrivateTestScenes(NavsimDataset):
    """Scenes of one stage: inputs only.

    Args:
        root: Where they are.
        tokens: Which of them; of follow-up scenes both of a file are taken if the first is among them.
        steps: ``feature_pipeline`` and ``pipeline`` of :class:`NavsimDataset`.
    """

    def __init__(self, root: PrivateTestRoot, tokens: Sequence[str], steps: dict[str, Any]) -> None:
        super().__init__(
            data_root=root.root,
            split=root.root.name,
            scene_filter=SceneFilter(num_future_frames=0, frame_interval=1, tokens=tokens).to_dict(),
            inputs_only=True,
            lazy_init=True,
            **steps,
        )
        self._root = root

    @property
    def _where(self) -> Path:
        return self.data_root


@DATASETS.register_module()
class PrivateTestDataset(TwoStageDataset):
    """Scenes of both stages of the private test, as :class:`TwoStageDataset` has those of public boards.

    The logs are in ``data_root/navsim_logs/split``, of which the first counts, with their images in
    ``data_root/sensor_blobs/split``; ``two_stage`` needs no table of pairs, which is not public.
    """

    @cached_property
    def table(self) -> TwoStageSplit:
        """The split file, read at first use."""
        return TwoStageSplit.read(self.two_stage, with_pairs=False)

    @cached_property
    def datasets(self) -> list[NavsimDataset]:
        """The scenes of each stage."""
        logs, images = (self.data_root / folder / self.split for folder in ("navsim_logs", "sensor_blobs"))
        sensors = None if self.synthetic_sensors is None else Path(self.synthetic_sensors)
        first = PrivateTestRoot(logs, images)
        second = PrivateTestRoot(Path(self.synthetic_scenes), sensors, follow_ups=True)
        return [
            PrivateTestScenes(first, self.table.first, self._steps),
            PrivateTestScenes(second, self.table.second, self._steps),
        ]
