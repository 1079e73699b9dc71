"""Reading stores by scene token, in any process, shard by shard as they are asked for."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from beyonddrive.datasets.stores.checksums import record_checksum
from beyonddrive.datasets.stores.fingerprints import Fingerprint
from beyonddrive.datasets.stores.manifests import (
    StoreError,
    StoreKind,
    check_manifest,
    read_manifest,
    store_id,
)
from beyonddrive.datasets.stores.shards import SUFFIX, ShardIndex, damaged, read_index
from beyonddrive.structures.digests import digest_of


class _Shard(NamedTuple):
    """An open shard: its memory map, and the keys and the checksum of each token in it."""

    handle: Any
    keys: dict[str, list[str]]
    checksums: dict[str, int]


class ShardStore:
    """Reads a store by scene token; cheap to pickle and safe to use after a fork.

    Args:
        root: Folder of the store.
        kind: The kind it must be.
        config: The configuration it must have been made with; ``None`` accepts any.
        max_open: Shards that are kept mapped, so that a pass over a large store does not count as memory;
            None keeps all of them, for access at random.
        unique: Whether a token in two shards is an error; otherwise the first one counts.

    Attributes:
        failures: Token -> why it has no record.
        indices: Shard -> what it says of itself.

    Raises:
        StoreError: If the store is missing, of another kind or configuration, or damaged, or holds a shard of
            another store.
    """

    def __init__(
        self,
        root: str | Path,
        kind: StoreKind,
        config: Mapping[str, Any] | None = None,
        max_open: int | None = None,
        unique: bool = True,
    ) -> None:
        self.root, self.kind = Path(root), kind
        self.manifest = read_manifest(self.root, kind)
        check_manifest(self.root, self.manifest, kind, config)
        self.max_open = max_open
        self.failures: dict[str, str] = {}
        self.indices: dict[str, ShardIndex] = {}
        self._shard_of: dict[str, str] = {}
        self._open: OrderedDict[str, _Shard] = OrderedDict()
        self._process = os.getpid()
        own_id = store_id(kind, self.manifest["config"])
        for path in sorted(self.root.glob(f"*{SUFFIX}")):
            self._add(path, own_id, unique)

    def _add(self, path: Path, own_id: str, unique: bool) -> None:
        shard = path.name.removesuffix(SUFFIX)
        try:
            with safe_open(path, framework="np") as handle:
                index = read_index(handle, own_id)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise damaged(path, error, self.kind) from error
        for token in index.tokens:
            other = self._shard_of.setdefault(token, shard)
            if unique and other != shard:
                raise StoreError(
                    f"{path}: scene {token} is also in {other}{SUFFIX}: if one log is in the split under two "
                    f"names, remove one of the two from it; then delete the shard that is too many and run: "
                    f"{self.kind.command}"
                )
        self.indices[shard] = index
        self.failures.update(index.failures)

    @property
    def tokens(self) -> list[str]:
        """Tokens of all records, in the order of the shards."""
        return list(self._shard_of)

    def __len__(self) -> int:
        return len(self._shard_of)

    def __contains__(self, token: object) -> bool:
        return token in self._shard_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    @property
    def sources(self) -> dict[str, Fingerprint]:
        """Files that its shards were made from."""
        return {name: known for index in self.indices.values() for name, known in index.sources.items()}

    def fingerprint(self) -> dict[str, Any]:
        """What tells this store from another, by its manifest and its index, as JSON values.

        Returns:
            ``kind``, ``records``, and ``digest`` of what the store was made with and of the checksums of all
            its records, however they are divided into shards.
        """
        records = sorted(
            pair
            for index in self.indices.values()
            for pair in zip(index.tokens, index.checksums, strict=True)
        )
        digest = digest_of([self.manifest["config"], records])
        return {"kind": self.kind.name, "records": len(self), "digest": digest}

    def shard_of(self, token: str) -> str | None:
        """Name of the shard that holds a record; None if there is none."""
        return self._shard_of.get(token)

    def __getitem__(self, token: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of a token by field name; writable copies.

        Raises:
            StoreError: If there is none, with the reason if it failed, or if it is damaged.
        """
        shard = self._shard_of.get(token)
        if shard is None:
            if token in self.failures:
                raise StoreError(f"{self.root}: scene {token} failed: {self.failures[token]}")
            raise StoreError(f"{self.root}: no scene {token}; if its split has it: {self.kind.command}")
        handle, keys, checksums = self._opened(shard)
        start = len(token) + 1
        record = {key[start:]: handle.get_tensor(key) for key in keys[token]}
        if record_checksum(token, record) != checksums[token]:
            path = self.root / f"{shard}{SUFFIX}"
            raise damaged(path, f"the checksum of scene {token} does not fit", self.kind)
        return record

    def _opened(self, name: str) -> _Shard:
        if self._process != os.getpid():
            # A memory map shared with the parent would be unmapped when either side closes it.
            self._open, self._process = OrderedDict(), os.getpid()
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        path = self.root / f"{name}{SUFFIX}"
        try:
            handle = safe_open(path, framework="np")
        except (OSError, SafetensorError) as error:
            raise damaged(path, error, self.kind) from error
        index = self.indices[name]
        keys: dict[str, list[str]] = {token: [] for token in index.tokens}
        for key in handle.keys():  # noqa: SIM118 - not a mapping
            keys.setdefault(key.partition("/")[0], []).append(key)
        self._open[name] = _Shard(handle, keys, dict(zip(index.tokens, index.checksums, strict=True)))
        if self.max_open is not None and len(self._open) > self.max_open:
            self._open.popitem(last=False)
        return self._open[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


class StoreReader:
    """What reads the records of a store as more than arrays; cheap to pickle.

    Args:
        store: The store.
    """

    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self.root = store.root

    @property
    def tokens(self) -> list[str]:
        """Tokens of all records, in the order of the shards."""
        return self._store.tokens

    @property
    def failures(self) -> dict[str, str]:
        """Scenes that have no record, with the reason."""
        return self._store.failures

    def fingerprint(self) -> dict[str, Any]:
        """What tells this store from another, see :meth:`ShardStore.fingerprint`."""
        return self._store.fingerprint()

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, token: object) -> bool:
        return token in self._store

    def __iter__(self) -> Iterator[str]:
        return iter(self._store)
