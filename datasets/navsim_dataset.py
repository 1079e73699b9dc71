"""The data set that planners train and are tested on: scenes of a NAVSIM split as inputs and targets."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from beyonddrive.datasets.navsim.account import SplitAccount, account_of
from beyonddrive.datasets.navsim.root import NavsimRoot, SceneRef, doubled_scene
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.stores.feature_cache import FeatureCache
from beyonddrive.datasets.stores.fingerprints import Fingerprint
from beyonddrive.datasets.stores.sources import DataPlace
from beyonddrive.datasets.transforms.base import Results
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.registry import DATASETS, TRANSFORMS
from beyonddrive.structures.errors import BeyondDriveError

Transform = Callable[[Results], Results]


class DatasetError(BeyondDriveError, ValueError):
    """A data set has no scenes, or one of them cannot be used; the message names split, scene and file."""


@DATASETS.register_module()
class NavsimDataset(Dataset[dict[str, Any]]):
    """Scenes of one split.

    A sample is made in two steps: ``feature_pipeline`` turns a scene into arrays and depends on nothing else,
    so its result can be cached; ``pipeline`` turns the arrays into what a planner takes.

    Args:
        data_root: Folder with ``navsim_logs``, ``sensor_blobs`` and ``maps`` (NAVSIM_FORMAT, section 1).
        split: Name of the split, a folder in ``navsim_logs``.
        maps_root: Folder of the maps; ``data_root/maps`` if None.
        scene_filter: Which windows of the logs are scenes: keys of
            :class:`scene_filter.SceneFilter`, or the path of a yaml file with them; a ``path`` among keys
            is that file, with the other keys changed.
        feature_pipeline: Configs of transforms that find ``scene``, ``root``, ``token`` and ``log_name``.
        pipeline: Configs of transforms that find the arrays, ``token`` and ``log_name``.
        negatives: Settings of a :class:`LoadNegatives` that adds hard negatives to the arrays before
            ``pipeline``; its ``split`` is that of the data set unless given. None for none.
        cache_dir: Folder of a feature cache (:func:`~beyonddrive.datasets.feature_caching.cache_features`) to
            read arrays from; neither logs, maps nor sensor files are needed then.
        lazy_init: Look at nothing on disk until :meth:`full_init`, which the first access calls.

    Raises:
        DatasetError: If there are no scenes, or negatives would be loaded twice.
        StoreError: If the cache is missing, unfinished, or was made for something else.
    """

    config_parts: ClassVar[Mapping[str, Collection[str]]] = {
        "scene_filter": ("path", *(field.name for field in fields(SceneFilter))),
        "negatives": tuple(inspect.signature(LoadNegatives).parameters),
    }
    """Keys of arguments that are mappings, for whoever checks a config before it is used."""

    def __init__(
        self,
        data_root: str | Path,
        split: str,
        maps_root: str | Path | None = None,
        scene_filter: Mapping[str, Any] | str | Path | None = None,
        feature_pipeline: Sequence[Mapping[str, Any]] = (),
        pipeline: Sequence[Mapping[str, Any]] = (),
        negatives: Mapping[str, Any] | None = None,
        cache_dir: str | Path | None = None,
        inputs_only: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.data_root = Path(data_root)
        self.split = split
        self.maps_root = None if maps_root is None else Path(maps_root)
        self.scene_filter = SceneFilter.from_config(scene_filter)
        if inputs_only:
            if cache_dir is not None:
                raise DatasetError(
                    f"split {split}: inputs_only=True reads logs and sensor files; leave cache_dir "
                    f"({cache_dir}) out"
                )
            self.scene_filter = self.scene_filter.without_future()
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.feature_transforms: list[Transform] = [TRANSFORMS.build(dict(c)) for c in feature_pipeline]
        self.feature_config = _plain(
            {
                "feature_pipeline": list(feature_pipeline),
                "split": split,
                "scene_filter": self.scene_filter.describe(),
                "versions": {type(t).__name__: getattr(t, "version", 1) for t in self.feature_transforms},
            }
        )
        if negatives is not None:
            pipeline = [{"type": "LoadNegatives", "split": split, **negatives}, *pipeline]
        self.transforms: list[Transform] = [TRANSFORMS.build(dict(c)) for c in pipeline]
        if inputs_only:
            self.feature_transforms = _without_targets(self.feature_transforms)
            self.transforms = _without_targets(self.transforms)
        if sum(isinstance(step, LoadNegatives) for step in self.transforms) > 1:
            raise DatasetError(
                "NavsimDataset: two LoadNegatives, of which the second would overwrite what the first found; "
                "give the field negatives, or one LoadNegatives in pipeline"
            )
        self._root: NavsimRoot | None = None
        self._refs: list[SceneRef] = []
        self._cache: FeatureCache | None = None
        self._tokens: list[str] = []
        self._account = SplitAccount(0)
        self._ready = False
        if not lazy_init:
            self.full_init()

    @property
    def root(self) -> NavsimRoot:
        """The data root, opened at first use."""
        if self._root is None:
            self._root = NavsimRoot(self.data_root, self.maps_root)
        return self._root

    @property
    def metainfo(self) -> dict[str, Any]:
        """What the data set is, for whoever logs it."""
        return {"dataset": "navsim", "data_root": str(self.data_root), "split": self.split}

    @property
    def tokens(self) -> list[str]:
        """Scene tokens, in the order of the samples."""
        self.full_init()
        return self._tokens

    @property
    def account(self) -> SplitAccount:
        """How many scenes there should be, and why those that are missing are."""
        self.full_init()
        return self._account

    @property
    def lost(self) -> dict[str, str]:
        """Token of each scene, and name of each log, that should be here and is not, with the reason."""
        return self.account.lost

    @property
    def sources(self) -> dict[str, Fingerprint]:
        """Logs that the scenes are of, and maps that cached features are of, by their names as sources."""
        self.full_init()
        if self._cache is not None:
            return self._cache.sources
        place = DataPlace.of(self.root, self.split)
        found: dict[str, Fingerprint] = {}
        for path in sorted({ref.log_path for ref in self._refs}):
            found |= place.of_log(path)
        return found

    def full_init(self) -> None:
        """Find the scenes, in the cache or else in the logs; does nothing the second time."""
        if self._ready:
            return
        if self.cache_dir is not None:
            place = self._place_at_hand()
            self._cache = FeatureCache(self.cache_dir, self.feature_config, place, self._logs_at_hand())
            self._tokens = self._cache.tokens
            failures, lost_logs = self._cache.failures, self._cache.lost_logs
        else:
            self.root.forget_problems()
            self._refs = list(self.root.refs(self.split, self.scene_filter))
            self._tokens = [ref.token for ref in self._refs]
            self._refuse_doubled_scenes()
            failures, lost_logs = {}, self.root.lost_logs
        self._account = account_of(self.scene_filter, self._tokens, failures, lost_logs)
        lost = [f"{name}: {reason}" for name, reason in self._account.lost.items()]
        where = self.cache_dir or self.data_root / "navsim_logs" / self.split
        if not self._tokens:
            raise DatasetError(
                f"{where}: split {self.split!r} has no scenes with scene filter {self.scene_filter}"
                + "".join(f"; {line}" for line in lost[:3])
            )
        if lost:
            listing = "".join(f"\n  {line}" for line in lost[:10])
            warnings.warn(f"{where}: {self._account} are there, missing are:{listing}", stacklevel=2)
        place = self._place_at_hand()
        for transform in self.transforms:
            if place is not None and hasattr(transform, "check_sources"):
                transform.check_sources(place)
        self._ready = True

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the sample: what the last transform of ``pipeline`` returns.

        Raises:
            DatasetError: If a file of the scene is missing or damaged; names the scene, the log and the file.
        """
        results = self.features(index)
        token, log_name = results["token"], results["log_name"]
        try:
            for transform in self.transforms:
                results = transform(results)
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise DatasetError(f"split {self.split}: scene {token} of log {log_name}: {error}") from error
        return results

    def features(self, index: int) -> Results:
        """Arrays of one scene, and its ``token`` and ``log_name``: what ``pipeline`` is given.

        Raises:
            DatasetError: As :meth:`__getitem__`.
        """
        self.full_init()
        if self._cache is not None:
            return self._cache[self._tokens[index]]
        return self.make_features(self._refs[index])

    def make_features(self, ref: SceneRef) -> Results:
        """Run the feature pipeline on a scene of the logs, whether or not there is a cache.

        Raises:
            DatasetError: As :meth:`__getitem__`.
        """
        try:
            scene = self.root.load(ref, self.split)
            results: Results = {
                "scene": scene,
                "root": self.root,
                "token": scene.token,
                "log_name": scene.log_name,
            }
            for transform in self.feature_transforms:
                results = transform(results)
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise DatasetError(
                f"split {self.split}: scene {ref.token} of log {ref.log_path.stem}: {error}"
            ) from error
        return {
            key: value
            for key, value in results.items()
            if isinstance(value, np.ndarray) or key in ("token", "log_name")
        }

    def _refuse_doubled_scenes(self) -> None:
        log_of: dict[str, Path] = {}
        for ref in self._refs:
            if (other := log_of.setdefault(ref.token, ref.log_path)) != ref.log_path:
                raise DatasetError(doubled_scene(ref.token, other, ref.log_path))

    def _place_at_hand(self) -> DataPlace | None:
        """Where logs and maps are; None if they are not on this machine."""
        if not (self.data_root / "navsim_logs" / self.split).is_dir():
            return None
        return DataPlace.of(self.root, self.split)

    def _logs_at_hand(self) -> list[Path]:
        """Logs that a cache must have been made from; none if they are not on this machine."""
        # With max_scenes, which logs were read is known only to who made the cache.
        if self.scene_filter.max_scenes or self._place_at_hand() is None:
            return []
        return self.root.filtered_logs(self.split, self.scene_filter)


def _without_targets(transforms: Sequence[Transform]) -> list[Transform]:
    return [transform for transform in transforms if not getattr(transform, "is_target", False)]


def _plain(value: Any) -> Any:
    """Config values as JSON keeps them, so that what is written equals what is compared."""

    def to_plain(item: Any) -> Any:
        return item.tolist() if isinstance(item, np.ndarray) else str(item)

    return json.loads(json.dumps(value, default=to_plain))
