"""Stores on disk: records of arrays by scene token, in shards that are complete or absent.

Everything derived from a data set (features, metric caches, negatives) is kept in one such store::

    <root>/manifest.json            what the records are and what they were made from
    <root>/<shard>.safetensors      one shard, memory mapped, holds numbers only and executes nothing

A shard is written beside its final name and renamed when complete, so a killed job leaves whole shards and
goes on with the next one. A store whose manifest differs from what a reader or writer expects is refused
with the keys that differ. A shard holds checksums of its records and of its index, verified whenever one is
read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from beyonddrive.datasets.stores.checksums import record_checksum, seal, unseal
from beyonddrive.datasets.stores.fingerprints import Fingerprint, Sources
from beyonddrive.datasets.stores.manifests import (
    MANIFEST,
    StoreError,
    StoreKind,
    check_manifest,
    make_manifest,
    read_manifest,
    store_id,
)
from beyonddrive.engine.files import file_lock, remove_leftovers, write_atomically

SUFFIX = ".safetensors"

Record = Mapping[str, NDArray[Any]]


class ShardIndex(NamedTuple):
    """What a shard says of itself.

    Attributes:
        tokens: Its records.
        checksums: Checksum of each record.
        failures: Tokens that belong to it but could not be made, with the reason.
        sources: Files that it was made from.
        marks: What else its writer wants to know when it comes again.
        store: What it is of: :func:`~beyonddrive.datasets.stores.manifests.store_id`.
        order: Its records and failures, in the order of what they are of; empty if its writer gave none.
    """

    tokens: tuple[str, ...] = ()
    checksums: tuple[int, ...] = ()
    failures: Mapping[str, str] = MappingProxyType({})
    sources: Sources = MappingProxyType({})
    marks: tuple[str, ...] = ()
    store: str = ""
    order: tuple[str, ...] = ()


class ShardWriter:
    """Writes a store, shard by shard; several processes may write different shards of one store.

    Args:
        root: Folder of the store; made if absent.
        kind: What a record is, and the command that a message names.
        config: Everything the records depend on, as JSON values.
        source: Where they came from, for people.
        sources: Files that all records depend on, if shards do not name their own.

    Raises:
        StoreError: If the folder holds a store with another kind, format or configuration, or of other files.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> kind = StoreKind('demo', 'python -m doctest')
    >>> writer = ShardWriter(root, kind, {'scale': 2}, 'a doctest')
    >>> writer.write('shard-00000', {'token': {'x': np.arange(3)}})
    >>> writer.read('shard-00000', ['token'])['token']['x'].tolist()
    [0, 1, 2]
    """

    def __init__(
        self,
        root: str | Path,
        kind: StoreKind,
        config: Mapping[str, Any],
        source: str,
        sources: Sources | None = None,
    ) -> None:
        self.root, self.kind, self._id = Path(root), kind, store_id(kind, config)
        remove_leftovers(self.root)
        if (self.root / MANIFEST).exists():
            check_manifest(self.root, read_manifest(self.root, kind), kind, config, sources)
            return
        has_shards = self.root.exists() and any(self.root.glob(f"*{SUFFIX}"))
        if has_shards and not (self.root / MANIFEST).exists():
            raise StoreError(f"{self.root}: holds shards but no {MANIFEST}; use another folder")
        manifest = make_manifest(kind, config, source, sources)
        text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
        try:
            write_atomically(self.root / MANIFEST, text.encode(), replace=False)
        except FileExistsError:  # another process was faster
            check_manifest(self.root, read_manifest(self.root, kind), kind, config, sources)

    def path(self, shard: str) -> Path:
        """File of a shard."""
        return self.root / f"{shard}{SUFFIX}"

    def done(self, shard: str) -> bool:
        """Whether the shard is complete."""
        return self.path(shard).exists()

    def index(self, shard: str) -> ShardIndex | None:
        """What is in a shard; None if there is none, or a damaged one, or one of another store."""
        try:
            with safe_open(self.path(shard), framework="np") as handle:
                return read_index(handle, self._id)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None

    def read(self, shard: str, tokens: Collection[str]) -> dict[str, dict[str, NDArray[Any]]]:
        """Records of a shard that is there, by token.

        Raises:
            StoreError: If one of them is damaged, or the shard is of another store.
        """
        path = self.path(shard)
        records: dict[str, dict[str, NDArray[Any]]] = {token: {} for token in tokens}
        try:
            with safe_open(path, framework="np") as handle:
                index = read_index(handle, self._id)
                for key in handle.keys():  # noqa: SIM118 - not a mapping
                    token, _, field = key.partition("/")
                    if token in records:
                        records[token][field] = handle.get_tensor(key)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise damaged(path, error, self.kind) from error
        for token, checksum in zip(index.tokens, index.checksums, strict=True):
            if token in records and record_checksum(token, records[token]) != checksum:
                raise damaged(path, f"the checksum of scene {token} does not fit", self.kind)
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
        order: Sequence[str] = (),
    ) -> None:
        """Write a shard, all of it or nothing.

        Args:
            shard: Name of the shard, used as file name.
            records: Token -> field -> array (numbers or booleans).
            failures: Tokens that belong to the shard but could not be made, with the reason.
            sources: Files that the records were made from.
            marks: See :class:`ShardIndex`.
            order: Likewise; kept if there are failures, as records are in their order anyhow.
        """
        tensors: dict[str, NDArray[Any]] = {}
        checksums: list[int] = []
        for token, record in records.items():
            if "/" in token:
                raise StoreError(f"{self.root}: a token must not hold '/', got {token!r}")
            arrays: dict[str, NDArray[Any]] = {}
            for field, array in record.items():
                array = np.asarray(array)
                if array.dtype.kind not in "biuf":
                    raise StoreError(
                        f"{self.root}: {token}/{field} has dtype {array.dtype}; only numbers are stored"
                    )
                # (ascontiguousarray would turn a scalar into an array of one)
                array = array.astype(array.dtype.newbyteorder("<"), copy=False)
                arrays[field] = array if array.flags.c_contiguous else array.copy()
            tensors |= {f"{token}/{field}": array for field, array in arrays.items()}
            checksums.append(record_checksum(token, arrays))
        index: dict[str, Any] = {
            "tokens": list(records),
            "checksums": checksums,
            "failures": dict(failures or {}),
            "store": self._id,
        }
        if sources:
            index["sources"] = dict(sources)
        if marks:
            index["marks"] = sorted(marks)
        if failures and order:
            index["order"] = list(order)
        # One entry: safetensors writes several in an order that differs from run to run.
        metadata = {"index": seal(json.dumps(index))}
        write_atomically(self.path(shard), save(tensors, metadata=metadata))


def read_index(handle: Any, store: str) -> ShardIndex:
    """The index of an open shard.

    Args:
        handle: The shard.
        store: What it must be of: :func:`~beyonddrive.datasets.stores.manifests.store_id`.

    Raises:
        KeyError, ValueError, TypeError: If it has none, or a damaged one, or is of another store.
    """
    index = json.loads(unseal((handle.metadata() or {})["index"]))
    sources = {name: Fingerprint(*values) for name, values in index.get("sources", {}).items()}
    tokens, checksums = tuple(index["tokens"]), tuple(index["checksums"])
    if len(tokens) != len(checksums):
        raise ValueError("it has not one checksum for each record")
    if index["store"] != store:
        raise ValueError("it is of another split or of other settings than this store")
    marks, order = tuple(index.get("marks", ())), tuple(index.get("order", ()))
    return ShardIndex(tokens, checksums, index["failures"], sources, marks, store, order)


def damaged(path: Path, reason: object, kind: StoreKind) -> StoreError:
    """The error of a shard that cannot be trusted."""
    return StoreError(
        f"{path}: is damaged or out of place ({reason}); delete this file and run: {kind.command}"
    )
