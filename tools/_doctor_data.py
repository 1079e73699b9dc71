"""The data that configs read or a command line names, and their stores, as checks of the doctor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from beyonddrive.datasets.navsim.inventory import data_checks, filters_of
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.engine.checks import Check, attempt
from beyonddrive.engine.executors import Executor
from beyonddrive.evaluation.store_checks import store_checks
from beyonddrive.tools._doctor_configs import ConfigNeeds

Place = tuple[Path, Path | None]
"""Data root, and maps if they are elsewhere."""


def needed_data_checks(
    needs: Sequence[ConfigNeeds],
    given: Place | None = None,
    stores: Sequence[Path] = (),
    num_logs: int | None = None,
    executor: Executor | None = None,
) -> Iterator[Check]:
    """Check a data root that is given, with all its splits, or those that configs name, with theirs.

    Args:
        needs: What the configs need.
        given: The data root to look at instead of theirs.
        stores: Folders of caches and pools besides theirs.
        num_logs: Logs of a split that are read; None for all of them.
        executor: Where logs are read; None is this process.
    """
    places: dict[Place, list[str] | None] = {}
    if given is not None:
        places[given] = None
    else:
        for need in needs:
            for source in need.sources:
                splits = places.setdefault((source.data_root, source.maps_root), [])
                if splits is not None and source.split not in splits:
                    splits.append(source.split)
    opened: dict[Place, NavsimRoot] = {}

    def look(place: Place, splits: list[str] | None) -> Iterator[Check]:
        root = NavsimRoot(*place)
        opened[place] = root
        named = [source.filter for need in needs for source in need.sources if source.data_root == place[0]]
        if given is not None:
            filters, damaged = filters_of(root)
            yield from damaged
            named = [*filters, *named]
        merged = {(entry.name, entry.split): entry for entry in named}
        yield from data_checks(root, splits, list(merged.values()), num_logs, executor)

    for place, splits in places.items():
        yield from attempt("data", lambda place=place, splits=splits: look(place, splits))  # type: ignore[misc]
    only = next(iter(opened.values())) if len(opened) == 1 else None
    folders: dict[NavsimRoot | None, list[Path]] = {only: list(stores)}
    for need in needs:
        for store in need.stores:
            where = need.places.get(store)
            root = only if given is not None or where is None else opened.get(where)
            folders.setdefault(root, []).append(store)
    for root, those in folders.items():
        yield from attempt("store", lambda root=root, those=those: store_checks(those, root))  # type: ignore[misc]
