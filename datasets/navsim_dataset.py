"""The data set that planners train and are tested on: scenes of a NAVSIM split as inputs and targets."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log
from numpy.typing import NDArray

from beyonddrive.datasets.feature_arrays import feature_arrays
from beyonddrive.datasets.navsim.account import Place, SplitAccount, places_of
from beyonddrive.datasets.navsim.root import NavsimRoot, SceneRef, doubled_scene
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.stores.feature_cache import KIND, FeatureCache
from beyonddrive.datasets.stores.fingerprints import Fingerprint
from beyonddrive.datasets.stores.manifests import MANIFEST, StoreError, differing_keys, read_manifest
from beyonddrive.datasets.stores.pictures import decoded
from beyonddrive.datasets.stores.sources import CachedPlace, DataPlace, only_logs, only_maps
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.registry import DATASETS, TRANSFORMS
from beyonddrive.structures.digests import digest_of
from beyonddrive.structures.errors import BeyondDriveError

Transform = Callable[[Results], Results]


class DatasetError(BeyondDriveError, ValueError):
    """A data set has no scenes, or one of them cannot be used; the message names split, scene and file."""


@DATASETS.register_module()
class NavsimDataset(BaseDataset):
    """Scenes of one split; mmengine's wrappers (``ConcatDataset``, ``RepeatDataset``) take it as it is.

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
            read arrays from; neither logs, maps nor sensor files are needed then. With
            ``scene_filter.max_scenes`` the cache of the whole split will do.
        inputs_only: Read what a planner is given and nothing that comes later: no targets, and scenes without
            a future, as a private test has them. Not with ``cache_dir``.
        indices: A part of the scenes, as mmengine has it: the first ``indices``, the last ones if negative,
            or those at a list of positions. Positions count over what the split should have, in its order,
            so that a scene that is lost is lost to the part; so they do for ``scene_filter.max_scenes`` and
            :meth:`get_subset`.
        allow_lost: Whether a training may go on without scenes that the split should have but that are lost.
            An evaluation counts them as failed in any case.
        lazy_init: Look at nothing on disk until :meth:`full_init`, which the first access calls.

    Raises:
        DatasetError: If there are no scenes, or fewer than ``indices`` asks for, or negatives would be loaded
            twice.
        StoreError: If the cache is missing, unfinished, or was made for something else.
    """

    config_parts: ClassVar[Mapping[str, Collection[str] | type]] = {
        "scene_filter": ("path", *(field.name for field in fields(SceneFilter))),
        "negatives": LoadNegatives,
    }
    """Keys of arguments that are mappings, or their reader, for whoever checks a config before it is used."""

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
        indices: int | Sequence[int] | None = None,
        allow_lost: bool = False,
        lazy_init: bool = False,
    ) -> None:
        # (data_list holds where each scene is, and tokens alone if they are read from a cache)
        super().__init__(data_prefix={}, indices=indices, serialize_data=False, lazy_init=True)
        self._fully_initialized: bool = False
        if "${" in str(data_root):
            raise DatasetError(
                f"data_root {str(data_root)!r} is a reference of a config that was not resolved: read the "
                f"config by beyonddrive.apis.load_config, not by Config.fromfile"
            )
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
        steps = [TRANSFORMS.build(dict(c)) for c in pipeline]
        if inputs_only:
            self.feature_transforms = _without_targets(self.feature_transforms)
            steps = _without_targets(steps)
        self.pipeline = Compose(steps)
        if sum(isinstance(step, LoadNegatives) for step in self.transforms) > 1:
            raise DatasetError(
                "NavsimDataset: two LoadNegatives, of which the second would overwrite what the first found; "
                "give the field negatives, or one LoadNegatives in pipeline"
            )
        self.allow_lost = allow_lost
        self._root: NavsimRoot | None = None
        self._cache: FeatureCache | None = None
        self._places: list[Place] = []
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
        """What the data set is; splits of one kind share it, so that they can be concatenated."""
        return {"dataset": "navsim"}

    @property
    def tokens(self) -> list[str]:
        """Scene tokens, in the order of the samples."""
        self.full_init()
        return [_token(entry) for entry in self.data_list]

    @property
    def transforms(self) -> list[Transform]:
        """The transforms of ``pipeline``."""
        steps: list[Transform] = self.pipeline.transforms
        return steps

    def without(self, *kinds: type) -> NavsimDataset:
        """The same scenes, without the transforms of some kinds; what has been read is shared."""
        other = copy.copy(self)
        other.pipeline = Compose([step for step in self.transforms if not isinstance(step, kinds)])
        return other

    @property
    def account(self) -> SplitAccount:
        """How many scenes there should be, and why those that are missing are."""
        self.full_init()
        return SplitAccount.of(self._places)

    @property
    def lost(self) -> dict[str, str]:
        """Token of each scene, and name of each log, that should be here and is not, with the reason."""
        return self.account.lost

    @property
    def sources(self) -> dict[str, Fingerprint]:
        """Logs that the scenes are of, and maps that cached features are of, by their names as sources."""
        self.full_init()
        if self._cache is not None:
            return only_logs(self._cache.sources) | only_maps(self._cache.sources)
        place = DataPlace.of(self.root, self.split)
        found: dict[str, Fingerprint] = {}
        for path in sorted({entry.log_path for entry in self.data_list if isinstance(entry, SceneRef)}):
            found |= place.of_log(path)
        return found

    def fingerprint(self) -> dict[str, Any]:
        """What tells the data of one training from those of another, as JSON values.

        Returns:
            ``split``, ``scenes``, ``tokens`` (digest of the scenes in their order), ``files``, ``digest`` of
            the files that they were read from, and ``by``: ``content`` if they come from a cache, which knows
            the digests of its sources, else ``name and size``, for reading all logs would take hours; and
            ``stores``: for each store that a transform of ``pipeline`` reads, the name of the transform and
            the fingerprint of the store.

        Raises:
            StoreError: If there is no such store, or it does not fit.
        """
        tokens = self.tokens
        parts: list[Any]
        if self._cache is not None:
            by = "content"
            parts = sorted([name, known.size, known.digest] for name, known in self.sources.items())
        else:
            by = "name and size"
            paths = {entry.log_path for entry in self.data_list if isinstance(entry, SceneRef)}
            parts = sorted([path.name, path.stat().st_size] for path in paths)
        return {
            "split": self.split,
            "scenes": len(tokens),
            "tokens": digest_of(tokens),
            "files": len(parts),
            "digest": digest_of(parts),
            "by": by,
            "stores": [
                {"transform": type(step).__name__, **store.fingerprint()}
                for step in self.transforms
                if isinstance(step, BaseTransform) and (store := step.store_read()) is not None
            ],
        }

    def full_init(self) -> None:
        """Find the scenes, in the cache or else in the logs; does nothing the second time."""
        if self._fully_initialized:
            return
        found: Sequence[SceneRef | str]
        if self.cache_dir is not None:
            self._cache = self._open_cache(self.cache_dir)
            found, scenes = self._cache.tokens, self._cache.scenes
            failures, lost_logs = self._cache.failures, self._cache.lost_logs
        else:
            self.root.forget_problems()
            refs = list(self.root.refs(self.split, self.scene_filter))
            self._refuse_doubled_scenes(refs)
            found, scenes = refs, [(ref.token, ref.log_path.stem) for ref in refs]
            failures, lost_logs = {}, self.root.lost_logs
        self._take(places_of(self.scene_filter, scenes, failures, lost_logs), found)
        if self._indices is not None:
            self._take(self._chosen(self._indices), self.data_list)
        account = SplitAccount.of(self._places)
        if not account.is_complete:
            name, reason = next(iter(account.lost.items()))
            text = f"{self._where}: {account} are there; the first that is missing: {name}: {reason}"
            print_log(text, "current", level=logging.WARNING)
        place: DataPlace | CachedPlace | None = self._place_at_hand()
        if place is None and self._cache is not None:
            place = CachedPlace(self._cache.sources)
        for transform in self.transforms:
            if place is not None and hasattr(transform, "check_sources"):
                transform.check_sources(place)
        self._fully_initialized = True

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep a part of the scenes: ``indices`` as for the data set itself.

        Raises:
            DatasetError: If they ask for scenes that are not there, or only for such as are lost.
        """
        self.full_init()
        self._take(self._chosen(indices), self.data_list)

    def get_subset(self, indices: int | Sequence[int]) -> NavsimDataset:
        """A part of the scenes, as :meth:`get_subset_`; what has been read is shared."""
        self.full_init()
        part = copy.copy(self)
        part.get_subset_(indices)
        return part

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Which scene a sample is of: ``token``, ``split`` and ``sample_idx``."""
        self.full_init()
        token = _token(self.data_list[idx])
        return {"token": token, "split": self.split, "sample_idx": idx % len(self.data_list)}

    def __len__(self) -> int:
        self.full_init()
        return len(self.data_list)

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
        entry = self.data_list[index]
        if isinstance(entry, SceneRef):
            return decoded(self.make_features(entry))
        assert self._cache is not None, "tokens alone come from a cache"
        try:
            return self._cache[entry]
        except StoreError as error:
            raise DatasetError(f"split {self.split}: scene {entry}: {error}") from error

    def scene(self, index: int) -> Scene:
        """The scene itself, from its log, whether or not there is a cache.

        Raises:
            DatasetError: If the log is not there, or cannot be read.
        """
        self.full_init()
        entry = self.data_list[index]
        try:
            if isinstance(entry, SceneRef):
                return self.root.load(entry, self.split)
            assert self._cache is not None, "tokens alone come from a cache"
            path = self.data_root / "navsim_logs" / self.split / f"{self._cache.log_of(entry)}.pkl"
            scenes = [found for _, found in self.root.log_scenes(path, self.split, {entry})]
            if len(scenes) != 1 or not isinstance(scenes[0], Scene):
                raise DatasetError(f"{path}: {scenes[0] if scenes else 'the scene is not in it'}")
            return scenes[0]
        except (ValueError, OSError) as error:
            raise DatasetError(f"split {self.split}: scene {_token(entry)}: {error}") from error

    def expert_plan(self, index: int) -> NDArray[np.float64]:
        """What the human driver did in a scene, (8, 3) as a plan; reads its log or cache, no sensor file.

        Raises:
            DatasetError: If the log cannot be read, or the features hold no ``trajectory``.
        """
        self.full_init()
        entry = self.data_list[index]
        try:
            if isinstance(entry, SceneRef):
                return np.asarray(self.root.load(entry, self.split).expert_plan, np.float64)
            assert self._cache is not None, "tokens alone come from a cache"
            return np.asarray(self._cache.stored(entry)["trajectory"], np.float64)
        except (ValueError, KeyError, StoreError) as error:
            raise DatasetError(
                f"split {self.split}: scene {_token(entry)}: no expert plan: {error}"
            ) from error

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
            return feature_arrays(results)
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise DatasetError(
                f"split {self.split}: scene {ref.token} of log {ref.log_path.stem}: {error}"
            ) from error

    def _open_cache(self, folder: Path) -> FeatureCache:
        """The cache of the scenes, or of the split of which they are the first ones."""
        config, scene_filter = self.feature_config, self.scene_filter
        if scene_filter.max_scenes is not None and (folder / MANIFEST).exists():
            whole = {**config, "scene_filter": {**config["scene_filter"], "max_scenes": None}}
            if not differing_keys(read_manifest(folder, KIND)["config"], whole):
                config, scene_filter = whole, replace(scene_filter, max_scenes=None)
        cache = FeatureCache(folder, config, self._place_at_hand(), self._logs_at_hand(scene_filter))
        listed = scene_filter.tokens
        if listed is not None and (more := set(cache.tokens).difference(listed)):
            raise StoreError(
                f"{folder}: holds {len(more)} scene(s) that the scene filter does not list, such as "
                f"{min(more)}; delete the folder and make it again: {KIND.command}"
            )
        return cache

    @property
    def _where(self) -> Path:
        """Where the scenes come from."""
        return self.cache_dir or self.data_root / "navsim_logs" / self.split

    def _take(self, places: list[Place], found: Sequence[SceneRef | str]) -> None:
        """Make the data set one of these scenes, those of which that are not lost are among ``found``."""
        entry_of = {_token(entry): entry for entry in found}
        chosen = [entry_of[place.token] for place in places if not place.reason]
        if not chosen:
            lost = [f"; {place.token or place.log_name}: {place.reason}" for place in places[:3]]
            raise DatasetError(
                f"{self._where}: split {self.split!r} has no scenes with scene filter {self.scene_filter}"
                + ("" if self._indices is None else f" and indices={self._indices}")
                + "".join(lost)
            )
        self._places, self.data_list = places, chosen

    def _chosen(self, indices: int | Sequence[int]) -> list[Place]:
        """The part of the scenes that ``indices`` names; mmengine would pass over that there are too few."""
        count = len(self._places)
        if isinstance(indices, int):
            chosen = list(range(count))[:indices] if indices >= 0 else list(range(count))[indices:]
            fits = 0 < abs(indices) <= count
        else:
            chosen = [int(index) for index in indices]
            fits = bool(chosen) and all(-count <= index < count for index in chosen)
        if not fits:
            shown = indices if isinstance(indices, int) else f"{list(indices)[:5]}..."
            raise DatasetError(
                f"{self._where}: indices={shown} asks for scenes that are not among its {count}"
            )
        return [self._places[index] for index in chosen]

    def _refuse_doubled_scenes(self, refs: Sequence[SceneRef]) -> None:
        log_of: dict[str, Path] = {}
        for ref in refs:
            if (other := log_of.setdefault(ref.token, ref.log_path)) != ref.log_path:
                raise DatasetError(doubled_scene(ref.token, other, ref.log_path))

    def _place_at_hand(self) -> DataPlace | None:
        """Where logs and maps are; None if they are not on this machine."""
        if not (self.data_root / "navsim_logs" / self.split).is_dir():
            return None
        return DataPlace.of(self.root, self.split)

    def _logs_at_hand(self, scene_filter: SceneFilter) -> list[Path]:
        """Logs that a cache must have been made from; none if they are not on this machine."""
        # With max_scenes, which logs were read is known only to the cache, which compares those.
        if scene_filter.max_scenes or self._place_at_hand() is None:
            return []
        return self.root.filtered_logs(self.split, scene_filter)


def _token(entry: SceneRef | str) -> str:
    return entry.token if isinstance(entry, SceneRef) else entry


def _without_targets(transforms: Sequence[Transform]) -> list[Transform]:
    return [transform for transform in transforms if not getattr(transform, "is_target", False)]


def _plain(value: Any) -> Any:
    """Config values as JSON keeps them, so that what is written equals what is compared."""

    def to_plain(item: Any) -> Any:
        return item.tolist() if isinstance(item, np.ndarray) else str(item)

    return json.loads(json.dumps(value, default=to_plain))
