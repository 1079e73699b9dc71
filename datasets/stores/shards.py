"""Stores on disk: records of arrays by scene token, in shards that are complete or absent.

Everything derived from a data set (features, metric caches, negatives) is kept in one such store::

    <root>/manifest.json            what the records are and what they were made from
    <root>/<shard>.safetensors      one shard, memory mapped, holds numbers only and executes nothing

A shard is written beside its final name and renamed when complete, so a killed job leaves whole shards and
goes on with the next one. A store whose manifest differs from what a reader or writer expects is refused
with the keys that differ.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from beyonddrive.datasets.stores.fingerprints import Fingerprint, Sources
from beyonddrive.engine.files import file_lock, write_atomically
from beyonddrive.structures.errors import BeyondDriveError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SUFFIX = ".safetensors"

Record = Mapping[str, NDArray[Any]]


class StoreError(BeyondDriveError, RuntimeError):
    """A store is missing, stale, damaged, or lacks what was asked of it."""


class ShardIndex(NamedTuple):
    """What a shard says of itself.

    Attributes:
        tokens: Its records.
        failures: Tokens that belong to it but could not be made, with the reason.
        sources: Files that it was made from.
        marks: What else its writer wants to know when it comes again.
    """

    tokens: tuple[str, ...]
    failures: dict[str, str]
    sources: dict[str, Fingerprint]
    marks: tuple[str, ...]


def differing_keys(stored: Any, wanted: Any, prefix: str = "") -> list[str]:
    """List where two nested configurations differ, one readable line each.

    >>> differing_keys({'a': 1, 'b': {'c': 2}}, {'a': 1, 'b': {'c': 3}})
    ['b.c: stored 2, wanted 3']
    """
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        lines: list[str] = []
        for key in sorted({*stored, *wanted}, key=str):
            name = f"{prefix}.{key}" if prefix else str(key)
            lines += differing_keys(stored.get(key), wanted.get(key), name)
        return lines
    return [] if stored == wanted else [f"{prefix or 'value'}: stored {stored!r}, wanted {wanted!r}"]


def read_manifest(root: Path) -> dict[str, Any]:
    """Read the manifest of a store.

    Raises:
        StoreError: If there is none or it is not valid JSON.
    """
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise StoreError(f"{root}: no store here ({MANIFEST} missing); run the tool that makes it") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete {root} and make it again") from error
    if not isinstance(manifest, dict) or not {"version", "kind", "config", "source"} <= manifest.keys():
        raise StoreError(f"{path}: is not the manifest of a store; delete {root} and make it again")
    return manifest


def check_manifest(
    root: Path, manifest: Mapping[str, Any], kind: str, config: Mapping[str, Any] | None
) -> None:
    """Refuse a store of another kind, format or configuration.

    Raises:
        StoreError: With every key that differs.
    """
    wanted: dict[str, Any] = {"version": FORMAT_VERSION, "kind": kind}
    stored = {key: manifest[key] for key in wanted}
    if config is not None:
        wanted["config"] = json.loads(json.dumps(config))
        stored["config"] = manifest["config"]
    lines = differing_keys(stored, wanted)
    if lines:
        raise StoreError(
            f"{root}: the store was made for something else: " + "; ".join(lines) + ". "
            "Use another folder, or delete this one and make it again"
        )


class ShardWriter:
    """Writes a store, shard by shard; several processes may write different shards of one store.

    Args:
        root: Folder of the store; made if absent.
        kind: What a record is: ``features``, ``metric_cache``, ``negatives``, ...
        config: Everything the records depend on, as JSON values.
        source: Where they came from, for people.

    Raises:
        StoreError: If the folder holds a store with another kind, format or configuration.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> writer = ShardWriter(root, 'demo', {'scale': 2}, 'a doctest')
    >>> writer.write('shard-00000', {'token': {'x': np.arange(3)}})
    >>> ShardStore(root, 'demo', {'scale': 2})['token']['x'].tolist()
    [0, 1, 2]
    """

    def __init__(self, root: str | Path, kind: str, config: Mapping[str, Any], source: str) -> None:
        self.root = Path(root)
        if (self.root / MANIFEST).exists():
            check_manifest(self.root, read_manifest(self.root), kind, config)
            return
        has_shards = self.root.exists() and any(self.root.glob(f"*{SUFFIX}"))
        if has_shards and not (self.root / MANIFEST).exists():
            raise StoreError(f"{self.root}: holds shards but no {MANIFEST}; use another folder")
        manifest = {"version": FORMAT_VERSION, "kind": kind, "config": config, "source": source}
        text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
        try:
            write_atomically(self.root / MANIFEST, text.encode(), replace=False)
        except FileExistsError:  # another process was faster
            check_manifest(self.root, read_manifest(self.root), kind, config)

    def path(self, shard: str) -> Path:
        """File of a shard."""
        return self.root / f"{shard}{SUFFIX}"

    def done(self, shard: str) -> bool:
        """Whether the shard is complete."""
        return self.path(shard).exists()

    def index(self, shard: str) -> ShardIndex | None:
        """What is in a shard; None if there is none, or a damaged one."""
        try:
            with safe_open(self.path(shard), framework="np") as handle:
                return _read_index(handle)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None

    def read(self, shard: str, tokens: Collection[str]) -> dict[str, dict[str, NDArray[Any]]]:
        """Records of a shard that is there, by token."""
        records: dict[str, dict[str, NDArray[Any]]] = {token: {} for token in tokens}
        with safe_open(self.path(shard), framework="np") as handle:
            for key in handle.keys():  # noqa: SIM118 - not a mapping
                token, _, field = key.partition("/")
                if token in records:
                    records[token][field] = handle.get_tensor(key)
        return records

    def locked(self, shard: str) -> AbstractContextManager[None]:
        """Keep other processes from a shard while it is read, added to and written again."""
        return file_lock(self.root / f".{shard}.lock")

    def write(
        self,
        shard: str,
        records: Mapping[str, Record],
        failures: Mapping[str, str] | None = None,
        sources: Sources | None = None,
        marks: Collection[str] = (),
    ) -> None:
        """Write a shard, all of it or nothing.

        Args:
            shard: Name of the shard, used as file name.
            records: Token -> field -> array (numbers or booleans).
            failures: Tokens that belong to the shard but could not be made, with the reason.
            sources: Files that the records were made from.
            marks: See :class:`ShardIndex`.
        """
        tensors: dict[str, NDArray[Any]] = {}
        for token, record in records.items():
            if "/" in token:
                raise StoreError(f"{self.root}: a token must not hold '/', got {token!r}")
            for field, array in record.items():
                array = np.asarray(array)
                if array.dtype.kind not in "biuf":
                    raise StoreError(
                        f"{self.root}: {token}/{field} has dtype {array.dtype}; only numbers are stored"
                    )
                # (ascontiguousarray would turn a scalar into an array of one)
                tensors[f"{token}/{field}"] = array if array.flags.c_contiguous else array.copy()
        index: dict[str, Any] = {"tokens": list(records), "failures": dict(failures or {})}
        if sources:
            index["sources"] = dict(sources)
        if marks:
            index["marks"] = sorted(marks)
        # One entry: safetensors writes several in an order that differs from run to run.
        metadata = {"index": json.dumps(index)}
        write_atomically(self.path(shard), save(tensors, metadata=metadata))


def _read_index(handle: Any) -> ShardIndex:
    index = json.loads((handle.metadata() or {})["index"])
    sources = {name: Fingerprint(*values) for name, values in index.get("sources", {}).items()}
    return ShardIndex(tuple(index["tokens"]), index["failures"], sources, tuple(index.get("marks", ())))


class _Shard(NamedTuple):
    """An open shard: its memory map, and the keys of each token in it."""

    handle: Any
    keys: dict[str, list[str]]


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
        StoreError: If the store is missing, of another kind or configuration, or damaged.
    """

    def __init__(
        self,
        root: str | Path,
        kind: str,
        config: Mapping[str, Any] | None = None,
        max_open: int | None = None,
        unique: bool = True,
    ) -> None:
        self.root = Path(root)
        self.manifest = read_manifest(self.root)
        check_manifest(self.root, self.manifest, kind, config)
        self.max_open = max_open
        self.failures: dict[str, str] = {}
        self.indices: dict[str, ShardIndex] = {}
        self._shard_of: dict[str, str] = {}
        self._open: OrderedDict[str, _Shard] = OrderedDict()
        self._process = os.getpid()
        for path in sorted(self.root.glob(f"*{SUFFIX}")):
            self._add(path, unique)

    def _add(self, path: Path, unique: bool) -> None:
        shard = path.name.removesuffix(SUFFIX)
        try:
            with safe_open(path, framework="np") as handle:
                index = _read_index(handle)
        except (OSError, SafetensorError) as error:
            raise _damaged(path, error) from error
        except (KeyError, ValueError, TypeError) as error:
            raise StoreError(f"{path}: has no list of tokens; delete it and run the job again") from error
        for token in index.tokens:
            other = self._shard_of.setdefault(token, shard)
            if unique and other != shard:
                raise StoreError(f"{path}: token {token} is also in {other}; delete one of them")
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

    def shard_of(self, token: str) -> str | None:
        """Name of the shard that holds a record; None if there is none."""
        return self._shard_of.get(token)

    def __getitem__(self, token: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of a token by field name; writable copies."""
        shard = self._shard_of.get(token)
        if shard is None:
            if token in self.failures:
                raise StoreError(f"{self.root}: scene {token} failed: {self.failures[token]}")
            raise StoreError(
                f"{self.root}: no scene {token}; run the tool that makes this store for its split"
            )
        handle, keys = self._opened(shard)
        start = len(token) + 1
        return {key[start:]: handle.get_tensor(key) for key in keys[token]}

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
            raise _damaged(path, error) from error
        keys: dict[str, list[str]] = {token: [] for token in self.indices[name].tokens}
        for key in handle.keys():  # noqa: SIM118 - not a mapping
            keys.setdefault(key.partition("/")[0], []).append(key)
        self._open[name] = _Shard(handle, keys)
        if self.max_open is not None and len(self._open) > self.max_open:
            self._open.popitem(last=False)
        return self._open[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path}: is damaged ({error}); delete it and run the job again")
