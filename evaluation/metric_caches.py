"""Metric caches of a split: in a store with one shard per log, or built from logs and maps.

A store holds scenes of one split, whoever asked for them: ``beyonddrive cache-metrics`` puts those of a
scene filter into it, ``beyonddrive score --cache-dir`` those that it is asked to score. A shard knows the log
and the maps that it was made from; when they change it is made again. Whoever adds to a shard holds its lock,
reads what is there, and writes it whole, so that several jobs can fill one store.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from beyonddrive.datasets.navsim.logs import LogError
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene, SceneError
from beyonddrive.datasets.stores.fingerprints import Fingerprint, Sources, fingerprint
from beyonddrive.datasets.stores.manifests import MANIFEST, StoreError, StoreKind
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import ShardIndex, ShardWriter
from beyonddrive.datasets.stores.sources import DataPlace, only_logs, only_maps
from beyonddrive.evaluation.pdm.cache.build import build_metric_cache
from beyonddrive.evaluation.pdm.cache.metric_cache import CACHE_VERSION, MetricCache
from beyonddrive.structures.digests import digest_of_lines
from beyonddrive.structures.errors import describe_error

KIND = StoreKind("metric_cache", "beyonddrive cache-metrics CONFIG")
"""Kind of a store of metric caches."""

_MAX_OPEN = 2


class MetricCaches:
    """Metric caches of the scenes of a split; cheap to pickle.

    Args:
        split: Split that the scenes belong to.
        root: Where logs and maps are: to build caches, and to notice that logs or maps have changed since.
        folder: A store to read; None builds every cache when it is asked for.
        grow: Whether caches that are built are kept in ``folder``, which is made if it is not there; then
            shards of logs or maps that have changed are made again instead of being refused.

    Raises:
        ValueError: If there is neither a store nor a data root.
        StoreError: If the store is missing, damaged, of another split or version, or older than its logs and
            maps.
    """

    def __init__(
        self, split: str, root: NavsimRoot | None = None, folder: Path | None = None, grow: bool = False
    ) -> None:
        if root is None and (folder is None or grow):
            raise ValueError(f"metric caches: give cache_dir (a store, made by: {KIND.command}) or data_root")
        self.split, self.root = split, root
        self.writer: ShardWriter | None = None
        self._store: ShardStore | None = None
        self._stale: set[str] = set()
        if folder is None:
            return
        if root is not None and grow:
            _refuse_folder_of_stores(folder, split)
            self.writer = ShardWriter(folder, KIND, store_config(split), f"{root.root}, split {split}")
        self._store = open_store(folder, split)
        if root is not None:
            indices = self._store.indices.items()
            place = DataPlace.of(root, split)
            self._stale = {shard for shard, index in indices if not is_fresh(index, place, shard)}
        if self._stale and not grow:
            raise StoreError(
                f"{folder}: {len(self._stale)} log(s), or their maps, have changed since the metric caches "
                f"were made, the first is {min(self._stale)}; bring them up to date: {KIND.command}"
            )

    def __contains__(self, token: object) -> bool:
        """Whether the metric cache of a scene is in the store, and of its log as it is now."""
        return self.shard_of(str(token)) is not None

    def __len__(self) -> int:
        return 0 if self._store is None else len(self._store)

    @property
    def tokens(self) -> list[str]:
        """Scenes in the store."""
        return [] if self._store is None else self._store.tokens

    def shard_of(self, token: str) -> str | None:
        """Shard that holds the metric cache of a scene; None if it is not in the store."""
        shard = None if self._store is None else self._store.shard_of(token)
        return None if shard in self._stale else shard

    def sources_of(self, shard: str) -> Sources:
        """Log and maps that a shard of the store was made from; nothing if it is not there."""
        return (
            {}
            if self._store is None or shard not in self._store.indices
            else self._store.indices[shard].sources
        )

    def map_sources(self) -> dict[str, Fingerprint]:
        """Maps that scores depend on: those of the store, or else all that the data root has.

        Raises:
            OSError: If a map cannot be read.
        """
        if self._store is not None:
            return only_maps(self._store.sources)
        assert self.root is not None
        return DataPlace.of(self.root, self.split).of_maps(self.root.maps_root.glob("*/*/map.gpkg"))

    def logs_digest(self, scenes: Iterable[tuple[str, str]], follow_ups: Iterable[Path] = ()) -> str:
        """Digest of what the logs of scenes hold, whatever their files are called and wherever they lie.

        Args:
            scenes: Token and name of the log of each.
            follow_ups: Files of those that are follow-up scenes, which count as their logs do.

        Returns:
            The digest, the same with a store as without one; empty without scenes, or if a log is not known,
            such as one that is stored under another name than its frames give, or a file cannot be read.
        """
        found: set[str] = set()
        for shard in {(self.shard_of(token) or "", name) for token, name in scenes}:
            known = only_logs(self.sources_of(shard[0])) if shard[0] else self._of_log(shard[1])
            if not known:
                return ""
            found |= {log.digest for log in known.values()}
        try:
            found |= {fingerprint(path).digest for path in follow_ups}
        except OSError:
            return ""
        return digest_of_lines(found) if found else ""

    def _of_log(self, log_name: str) -> Mapping[str, Fingerprint]:
        if self.root is None:
            return {}
        place = DataPlace.of(self.root, self.split)
        path = place.logs / f"{log_name}.pkl"
        try:
            return place.of_log(path) if path.is_file() else {}
        except OSError:
            return {}

    def __getitem__(self, token: str) -> MetricCache:
        """Metric cache of a scene in the store.

        Raises:
            StoreError: If it is not there, with the reason if it could not be made.
        """
        if self._store is None:
            raise StoreError(f"no scene {token}: there is no store of metric caches")
        return MetricCache.from_arrays(self._store[token])

    def get(self, token: str, log_name: str) -> MetricCache:
        """Metric cache of a scene, from the store if there is one, built from its log and map otherwise.

        Raises:
            StoreError: If the store does not hold it and does not grow.
            SceneError: If there is no such scene.
        """
        if self._store is not None and (self.writer is None or token in self):
            return self[token]
        assert self.root is not None
        path = self.root.root / "navsim_logs" / self.split / f"{log_name}.pkl"
        if path.exists():
            cache = dict(self.of_log(path, {token})).get(token)
            if isinstance(cache, MetricCache):
                return cache
            if cache is not None and not isinstance(cache, SceneError):
                raise cache
        # A log may be stored under another name than its frames give; the search also knows the reason.
        scenes, reasons = self.root.find(self.split, [token])
        if token not in scenes:
            raise SceneError(reasons[token])
        return build_metric_cache(scenes[token], self.root.map(scenes[token].map_location))

    def of_log(
        self, path: Path, tokens: Container[str], mark: str = ""
    ) -> Iterator[tuple[str, MetricCache | Exception]]:
        """Metric caches of scenes of one log; kept in the store if it grows, once all are through.

        Args:
            path: The log.
            tokens: Current frames of the scenes that are asked for.
            mark: What to write on the shard: that these are all scenes of some filter.

        Yields:
            Token, and metric cache or why there is none.

        Raises:
            LogError: If the log cannot be read; a shard of the log as it was is deleted.
        """
        if self.writer is None:
            yield from self._build(path, tokens)
            return
        shard = path.stem
        with self.writer.locked(shard):
            yield from self._extend(self.writer, path, tokens, mark)

    def _extend(
        self, writer: ShardWriter, path: Path, tokens: Container[str], mark: str
    ) -> Iterator[tuple[str, MetricCache | Exception]]:
        """Make what another job has not made of a log meanwhile, and add it to its shard."""
        assert self.root is not None
        shard = path.stem
        index, kept = self._read_shard(writer, shard)
        if index is None:
            writer.path(shard).unlink(missing_ok=True)  # damaged, or of the log as it was
        old = ShardIndex() if index is None else index
        stored = set(old.tokens)
        for token in old.tokens:
            if token in tokens:
                yield token, MetricCache.from_arrays(kept[token])
        sources, failures = dict(old.sources), dict(old.failures)
        records: dict[str, dict[str, NDArray[Any]]] = {}
        for token, cache in self._build(path, _Without(tokens, stored), sources):
            if isinstance(cache, MetricCache):
                records[token] = cache.to_arrays()
                failures.pop(token, None)
            elif not isinstance(cache, SceneError):
                failures[token] = describe_error(cache, token)
            yield token, cache
        marks = {*old.marks, *([mark] if mark else [])}
        if records or failures != old.failures or marks != set(old.marks):
            writer.write(shard, {**kept, **records}, failures, sources, marks)

    def _read_shard(
        self, writer: ShardWriter, shard: str
    ) -> tuple[ShardIndex | None, dict[str, dict[str, NDArray[Any]]]]:
        """A shard of log and maps as they are, and its records; None if there is none or it is damaged."""
        assert self.root is not None
        index = writer.index(shard)
        if index is None or not is_fresh(index, DataPlace.of(self.root, self.split), shard):
            return None, {}
        try:
            return index, writer.read(shard, index.tokens)
        except StoreError:
            return None, {}

    def _build(
        self, path: Path, tokens: Container[str], sources: dict[str, Fingerprint] | None = None
    ) -> Iterator[tuple[str, MetricCache | Exception]]:
        """Build metric caches of a log, and note what they are made from if that is asked for."""
        assert self.root is not None
        place = DataPlace.of(self.root, self.split)
        if sources is not None:
            try:
                sources |= place.of_log(path)
            except OSError as error:
                raise LogError(f"{path}: cannot be read ({error})") from error
        for token, scene in self.root.log_scenes(path, self.split, tokens):
            if not isinstance(scene, Scene):
                yield token, scene
                continue
            try:
                nuplan_map = self.root.map(scene.map_location)
                if sources is not None:
                    sources |= place.of_maps([nuplan_map.path])
                yield token, build_metric_cache(scene, nuplan_map)
            except Exception as error:
                # Whatever is wrong with one scene of thousands, it is named and the rest goes on.
                yield token, error


# ------------------------------------------------------------------ what is there
class _Without(Container[str]):
    """Some tokens without others."""

    def __init__(self, tokens: Container[str], others: Container[str]) -> None:
        self.tokens, self.others = tokens, others

    def __contains__(self, token: object) -> bool:
        return token in self.tokens and token not in self.others


def store_config(split: str) -> dict[str, Any]:
    """What the metric caches of a split depend on besides its logs and maps."""
    return {"cache_version": CACHE_VERSION, "split": split}


def open_store(folder: Path, split: str) -> ShardStore:
    """Open a store of metric caches of a split.

    Raises:
        StoreError: If there is none, or one of something else.
    """
    # Frames, and with them scenes, may be in more than one log.
    return ShardStore(folder, KIND, store_config(split), _MAX_OPEN, unique=False)


def _refuse_folder_of_stores(folder: Path, split: str) -> None:
    """A folder with stores of splits in it would become one of its own, and all would be made again.

    Raises:
        StoreError: If it is no store, and folders in it are.
    """
    if (folder / MANIFEST).exists():
        return
    inner = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    if inner:
        wanted = folder / split
        there = wanted if wanted in inner else inner[0]
        raise StoreError(
            f"{folder}: is no store of metric caches, but holds stores, such as {there}; give the one of the "
            f"split, {wanted}"
        )


def is_fresh(index: ShardIndex, place: DataPlace, shard: str) -> bool:
    """Whether log and maps of a shard are as they were; those that are not here are taken to be."""
    return place.log_name(Path(f"{shard}.pkl")) in index.sources and not place.changed(index.sources)
