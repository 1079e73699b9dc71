"""Feature caches: the arrays of a split, made once, read in every epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from beyonddrive.datasets.stores.fingerprints import Fingerprint, Sources
from beyonddrive.datasets.stores.manifests import MANIFEST, StoreError, StoreKind
from beyonddrive.datasets.stores.pictures import EncodingError, decoded
from beyonddrive.datasets.stores.shard_store import ShardStore, StoreReader
from beyonddrive.datasets.stores.shards import SUFFIX, damaged
from beyonddrive.datasets.stores.sources import DataPlace, only_logs
from beyonddrive.engine.files import write_atomically

KIND = StoreKind("features", "beyonddrive cache-features CONFIG")
LOGS_FILE = "logs.json"
"""Which logs the cache was made from, and whether all of them are in it."""
LOG_NAME = "log_name"
"""Array of a record that holds the name of its log."""


class FeatureCache(StoreReader):
    """Reads features by scene token.

    Args:
        root: Folder of the cache.
        config: What it must have been made with: ``NavsimDataset.feature_config``.
        place: Where the data are, if they are here: then it is noticed that they have changed.
        logs: The logs of the data set; those that are not in the cache are noticed, too.

    Attributes:
        lost_logs: Name of each log that was absent or could not be read -> why.
        sources: Logs, maps and, of each log, some sensor files that it was made from.

    Raises:
        StoreError: If the cache is missing, unfinished, stale, or made for something else.
    """

    def __init__(
        self,
        root: Path,
        config: Mapping[str, Any],
        place: DataPlace | None = None,
        logs: Sequence[Path] = (),
    ) -> None:
        if not (Path(root) / MANIFEST).exists():
            raise StoreError(
                f"{root}: there is no feature cache of split {config.get('split')!r}; "
                f"make it with: {KIND.command}"
            )
        super().__init__(ShardStore(root, KIND, config))
        state = read_state(self.root)
        if not state.complete:
            raise StoreError(f"{self.root}: the feature cache is unfinished; go on with: {KIND.command}")
        self.sources, self.lost_logs = state.sources, state.lost_logs
        self._check_shards()
        if place is not None and (changed := _changed_sources(state.sources, place, logs)):
            raise StoreError(
                f"{self.root}: {len(changed)} source file(s) are new or have changed since the cache "
                f"was made, the first is {changed[0]}; bring it up to date with: {KIND.command}"
            )

    def _check_shards(self) -> None:
        """Refuse shards that are gone, or were not there when the cache was made."""
        indices = self._store.indices
        logs = {PurePosixPath(name).stem for name in only_logs(self.sources)}
        if gone := sorted(logs.difference(indices, self.lost_logs)):
            raise StoreError(
                f"{self.root}: {len(gone)} shard(s) of the feature cache are gone, the first is "
                f"{gone[0]}{SUFFIX}; make them again with: {KIND.command}"
            )
        for shard, index in indices.items():
            if shard not in logs or _digests(index.sources).items() - _digests(self.sources).items():
                raise StoreError(
                    f"{self.root / shard}{SUFFIX}: is not of the files that this feature cache was "
                    f"made from; delete this file and run: {KIND.command}"
                )

    @property
    def scenes(self) -> list[tuple[str, str]]:
        """Token and log of each scene, also of those without features, log by log in time order.

        Raises:
            StoreError: If the cache does not say where the latter belong.
        """
        found: list[tuple[str, str]] = []
        for shard, index in self._store.indices.items():
            if index.failures and not index.order:
                raise StoreError(
                    f"{self.root}: shard {shard} does not say where scenes without features belong; bring it "
                    f"up to date with: {KIND.command}"
                )
            found += [(token, shard) for token in index.order or index.tokens]
        return found

    def log_of(self, token: str) -> str:
        """File of a scene's log, without its ending; its frames may give the log another name.

        Raises:
            StoreError: If there is no such scene.
        """
        shard = self._store.shard_of(token)
        if shard is None:
            raise StoreError(f"{self.root}: no scene {token}; if its split has it: {KIND.command}")
        return shard

    def __getitem__(self, token: str) -> dict[str, Any]:
        """Return the arrays of a scene, its ``token`` and its ``log_name``; its camera image is decoded.

        Raises:
            StoreError: As :class:`ShardStore`, or if the image cannot be decoded.
        """
        record = self.stored(token)
        try:
            return decoded(record)
        except EncodingError as error:
            path = self.root / f"{self._store.shard_of(token)}{SUFFIX}"
            raise damaged(path, f"scene {token}: {error}", KIND) from error

    def stored(self, token: str) -> dict[str, Any]:
        """The same with the image as the store holds it: quicker for those who do not look at it."""
        record: dict[str, Any] = self._store[token]
        return {**record, "token": token, LOG_NAME: record[LOG_NAME].tobytes().decode()}


@dataclass
class CacheState:
    """How far a feature cache is: whether all was tried, the logs and maps that it is of, and lost logs."""

    complete: bool = False
    sources: dict[str, Fingerprint] = field(default_factory=dict)
    lost_logs: dict[str, str] = field(default_factory=dict)


def read_state(root: Path) -> CacheState:
    """The state of a cache; that of an unfinished one if there is none.

    Raises:
        StoreError: If its file is damaged.
    """
    path = root / LOGS_FILE
    try:
        state = CacheState(**json.loads(path.read_text()))
        state.sources = {name: Fingerprint(*values) for name, values in state.sources.items()}
    except FileNotFoundError:
        return CacheState()
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete it and run: {KIND.command}") from error
    return state


def write_state(root: Path, state: CacheState) -> None:
    """Write the state of a cache."""
    write_atomically(root / LOGS_FILE, json.dumps(vars(state), indent=1, sort_keys=True).encode())


def _digests(sources: Sources) -> dict[str, str]:
    return {name: source.digest for name, source in sources.items()}


def _changed_sources(known: Sources, place: DataPlace, logs: Sequence[Path]) -> list[str]:
    """Names of the logs that nothing is known of, and of what is here and is not what is known of it."""
    new = [name for name in map(place.log_name, logs) if name not in known]
    return new + place.changed(known)
