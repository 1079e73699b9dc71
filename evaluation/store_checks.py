"""Whether stores can be used: of this release's transforms and scorer, of logs and maps as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.stores import feature_cache, negative_pool, vocabulary_scores
from beyonddrive.datasets.stores.manifests import (
    FORMAT_VERSION,
    MANIFEST,
    StoreError,
    StoreKind,
    read_sources,
)
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.sources import DataPlace
from beyonddrive.engine.checks import Check
from beyonddrive.evaluation import metric_caches, score_files
from beyonddrive.evaluation.pdm.cache.metric_cache import CACHE_VERSION
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.plan import SCORER_VERSION

_KINDS = {
    kind.name: kind
    for kind in (feature_cache.KIND, metric_caches.KIND, negative_pool.KIND, vocabulary_scores.KIND)
}
_VERSIONS = {"cache_version": CACHE_VERSION, "scorer_version": SCORER_VERSION}
"""Keys of the settings of a store that must be of this release."""


def find_stores(folders: Iterable[Path]) -> list[Path]:
    """Folders of stores in some folders, sorted; those in hidden folders are parts of unfinished jobs.

    Links are followed: a store may lie on another disk.
    """
    found: dict[Path, Path] = {}
    seen: set[Path] = set()
    for top in folders:
        for name, inner, files in os.walk(top, followlinks=True):
            folder = Path(name)
            place = folder.resolve()
            if place in seen:  # (by another way, or in a circle)
                inner.clear()
                continue
            seen.add(place)
            if MANIFEST in files:
                found[place] = folder
    return sorted(found.values())


def store_checks(folders: Iterable[Path], root: NavsimRoot | None = None) -> list[Check]:
    """What each store in some folders is, and whether it is fresh.

    Args:
        folders: Where to look; what does not exist is said.
        root: Where logs and maps are, to compare with; None compares versions only.
    """
    checks = []
    present = []
    for folder in dict.fromkeys(map(Path, folders)):
        if folder.is_dir():
            present.append(folder)
        else:
            checks.append(Check("store", "warn", f"{folder} is not there yet", "make it by its command"))
    for path in find_stores(present):
        checks.append(_store_check(path, root))
    return checks


def _store_check(path: Path, root: NavsimRoot | None) -> Check:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        name, version, config = str(manifest["kind"]), manifest["version"], dict(manifest["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"delete {path} and make it again"
        return Check("store", "fail", f"{path / MANIFEST}: cannot be read ({error})", remedy)
    facts: dict[str, Any] = {"path": str(path), "kind": name, "split": config.get("split", "")}
    if name == score_files.KIND.name:
        remedy = "run the same command again, or delete it"
        return Check("store", "warn", f"{path}: parts of an unfinished job", remedy, facts)
    if name not in _KINDS:
        return Check(
            "store", "warn", f"{path}: {name} is no kind of store that this release knows", "", facts
        )
    kind = _KINDS[name]
    head = f"{path}: {name.replace('_', ' ')} of split {facts['split'] or 'unknown'}"
    if version != FORMAT_VERSION:
        problem = f"format {version}, this release reads {FORMAT_VERSION}"
    else:
        problem = "; ".join(_other_versions(config))
    if problem:
        remedy = f"delete it and make it again: {kind.command}"
        return Check("store", "fail", f"{head}, {problem}", remedy, {**facts, "fresh": False})
    try:
        return _fresh_check(path, manifest, kind, root, head, facts)
    except StoreError as error:
        return Check("store", "fail", str(error), facts=facts)


def _other_versions(config: Mapping[str, Any]) -> Iterator[str]:
    """What a store was made by that this release has otherwise."""
    for key, wanted in _VERSIONS.items():
        if key in config and config[key] != wanted:
            yield f"{key} {config[key]}, now {wanted}"
    for name, stored in (config.get("versions") or {}).items():
        transform = TRANSFORMS.get(name)
        now = None if transform is None else getattr(transform, "version", 1)
        if now != stored:
            yield f"transform {name} {stored}, now {'gone' if now is None else now}"


def _fresh_check(
    path: Path,
    manifest: Mapping[str, Any],
    kind: StoreKind,
    root: NavsimRoot | None,
    head: str,
    facts: Mapping[str, Any],
) -> Check:
    store = ShardStore(path, kind, unique=kind != metric_caches.KIND)
    words = f"{head}, {len(store)} scenes" + (f", {len(store.failures)} failed" if store.failures else "")
    facts = {**facts, "scenes": len(store), "failed": len(store.failures)}
    remedy = f"bring it up to date: {kind.command}"
    if kind == feature_cache.KIND and not feature_cache.read_state(path).complete:
        return Check("store", "warn", f"{words}; unfinished", f"go on: {kind.command}", facts)
    split = str(facts["split"])
    if root is None or split not in root.splits():
        return Check("store", "ok", f"{words}; logs and maps are not here to compare", facts=facts)
    sources = {**read_sources(path, manifest), **store.sources}
    changed = DataPlace.of(root, split).changed(sources)
    if changed:
        message = f"{words}; {len(changed)} of its sources have changed, the first is {changed[0]}"
        return Check("store", "fail", message, remedy, {**facts, "fresh": False})
    return Check("store", "ok", f"{words}; fresh", facts={**facts, "fresh": True})
