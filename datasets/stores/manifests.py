"""Manifests of stores: what the records are, what they were made from and by; anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from beyonddrive.datasets.stores.fingerprints import Fingerprint, Sources
from beyonddrive.structures.errors import BeyondDriveError

FORMAT_VERSION = 3
"""Version of shards and manifests: 1 had no checksums, shards of 2 did not say of which store they are."""
MANIFEST = "manifest.json"
_SHOWN = 8
"""Keys that differ that a message names."""


class StoreError(BeyondDriveError, RuntimeError):
    """A store is missing, stale, damaged, or lacks what was asked of it."""


class StoreKind(NamedTuple):
    """What the records of a store are, and the command that makes such stores."""

    name: str
    command: str


def differing_keys(stored: Any, wanted: Any, prefix: str = "") -> list[str]:
    """List where two nested configurations differ, one readable line each.

    >>> differing_keys({'a': 1, 'b': [{'c': 2}]}, {'a': 1, 'b': [{'c': 3}]})
    ['b.0.c: stored 2, wanted 3']
    """
    if isinstance(stored, list) and isinstance(wanted, list) and len(stored) == len(wanted):
        stored, wanted = dict(enumerate(stored)), dict(enumerate(wanted))
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        lines: list[str] = []
        for key in sorted({*stored, *wanted}, key=str):
            name = f"{prefix}.{key}" if prefix else str(key)
            lines += differing_keys(stored.get(key), wanted.get(key), name)
        return lines
    return [] if stored == wanted else [f"{prefix or 'value'}: stored {stored!r}, wanted {wanted!r}"]


def store_id(kind: StoreKind, config: Mapping[str, Any]) -> str:
    """What stores of one kind and configuration, and their shards, have in common.

    >>> kind = StoreKind('demo', 'python -m doctest')
    >>> store_id(kind, {'a': 1, 'b': (2,)}) == store_id(kind, {'b': [2], 'a': 1}) != store_id(kind, {'a': 1})
    True
    """
    return blake2b(json.dumps([kind.name, config], sort_keys=True).encode(), digest_size=8).hexdigest()


def make_manifest(
    kind: StoreKind, config: Mapping[str, Any], source: str, sources: Sources | None
) -> dict[str, Any]:
    """The manifest of a new store, as JSON values."""
    manifest = {"version": FORMAT_VERSION, "kind": kind.name, "config": config, "source": source}
    return {**manifest, "sources": dict(sources or {})}


def read_manifest(root: Path, kind: StoreKind) -> dict[str, Any]:
    """Read the manifest of a store.

    Raises:
        StoreError: If there is none or it is not valid JSON.
    """
    path = root / MANIFEST
    remedy = f"delete {root} and make it again: {kind.command}"
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise StoreError(f"{root}: no store here ({MANIFEST} missing); make it: {kind.command}") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); {remedy}") from error
    if not isinstance(manifest, dict) or not {"version", "kind", "config", "source"} <= manifest.keys():
        raise StoreError(f"{path}: is not the manifest of a store; {remedy}")
    return manifest


def check_manifest(
    root: Path,
    manifest: Mapping[str, Any],
    kind: StoreKind,
    config: Mapping[str, Any] | None = None,
    sources: Sources | None = None,
) -> None:
    """Refuse a store of another kind, format or configuration, or of other files.

    Raises:
        StoreError: With the keys that differ.
    """
    wanted: dict[str, Any] = {"version": FORMAT_VERSION, "kind": kind.name}
    stored = {key: manifest[key] for key in wanted}
    is_comparable = stored == wanted  # otherwise every other key differs, too
    if config is not None and is_comparable:
        wanted["config"] = json.loads(json.dumps(config))
        stored["config"] = manifest["config"]
    if sources is not None and is_comparable:
        # (of files that only one of the two names nothing is known)
        known = read_sources(root, manifest)
        both = known.keys() & sources.keys()
        wanted["sources"] = {name: sources[name].digest for name in both}
        stored["sources"] = {name: known[name].digest for name in both}
    lines = differing_keys(stored, wanted)
    if lines:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise StoreError(
            f"{root}: the store was made for something else: {'; '.join(lines[:_SHOWN])}{more}. Use another "
            f"folder, or delete this one and make it again: {kind.command}"
        )


def read_sources(root: Path, manifest: Mapping[str, Any]) -> dict[str, Fingerprint]:
    """Files that the whole store was made from, by name.

    Raises:
        StoreError: If the manifest does not say it as it should.
    """
    try:
        return {name: Fingerprint(*values) for name, values in manifest.get("sources", {}).items()}
    except (TypeError, AttributeError) as error:
        raise StoreError(f"{root / MANIFEST}: sources: cannot be read ({error})") from error
