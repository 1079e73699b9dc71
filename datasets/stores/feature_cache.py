"""Feature caches: the arrays of a split, made once, read in every epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beyonddrive.datasets.stores.fingerprints import Fingerprint, is_unchanged
from beyonddrive.datasets.stores.shards import MANIFEST, ShardStore, StoreError
from beyonddrive.engine.files import write_atomically

KIND = "features"
LOGS_FILE = "logs.json"
"""Which logs the cache was made from, and whether all of them are in it."""
COMMAND = "python tools/cache_features.py CONFIG"
LOG_NAME = "log_name"
"""Array of a record that holds the name of its log."""


class FeatureCache:
    """Reads features by scene token.

    Args:
        root: Folder of the cache.
        config: What it must have been made with: ``NavsimDataset.feature_config``.
        logs: The logs of the data set, if they are here: then it is noticed that they have changed.

    Attributes:
        failures: Token of each scene that has no features -> why.
        lost_logs: Name of each log that was absent or could not be read -> why.

    Raises:
        StoreError: If the cache is missing, unfinished, stale, or made for something else.
    """

    def __init__(self, root: Path, config: Mapping[str, Any], logs: Sequence[Path] = ()) -> None:
        self.root = Path(root)
        if not (self.root / MANIFEST).exists():
            raise StoreError(
                f"{self.root}: there is no feature cache of split {config.get('split')!r}; "
                f"make it with: {COMMAND}"
            )
        self._store = ShardStore(self.root, KIND, config)
        state = read_state(self.root)
        if not state.complete:
            raise StoreError(f"{self.root}: the feature cache is unfinished; go on with: {COMMAND}")
        if changed := _changed_logs(state.logs, logs):
            raise StoreError(
                f"{self.root}: {len(changed)} log(s) are new or have changed since the cache was made, the "
                f"first is {changed[0]}; bring it up to date with: {COMMAND}"
            )
        self.failures = self._store.failures
        self.lost_logs = state.lost_logs

    @property
    def tokens(self) -> list[str]:
        """Tokens of all scenes, in the order of the logs."""
        return self._store.tokens

    def __getitem__(self, token: str) -> dict[str, Any]:
        """Return the arrays of a scene, its ``token`` and its ``log_name``."""
        record: dict[str, Any] = self._store[token]
        return {**record, "token": token, LOG_NAME: record[LOG_NAME].tobytes().decode()}


@dataclass
class CacheState:
    """How far a feature cache is: whether all was tried, the logs that are in it, and those that are not."""

    complete: bool = False
    logs: dict[str, Fingerprint] = field(default_factory=dict)
    lost_logs: dict[str, str] = field(default_factory=dict)


def read_state(root: Path) -> CacheState:
    """The state of a cache; that of an unfinished one if there is none.

    Raises:
        StoreError: If its file is damaged.
    """
    path = root / LOGS_FILE
    try:
        state = CacheState(**json.loads(path.read_text()))
        state.logs = {name: Fingerprint(*values) for name, values in state.logs.items()}
    except FileNotFoundError:
        return CacheState()
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete {root} and make it again") from error
    return state


def write_state(root: Path, state: CacheState) -> None:
    """Write the state of a cache."""
    write_atomically(root / LOGS_FILE, json.dumps(vars(state), indent=1, sort_keys=True).encode())


def _changed_logs(known: Mapping[str, Fingerprint], paths: Sequence[Path]) -> list[str]:
    """Names of logs that are not what is known of them."""
    return [path.stem for path in paths if path.stem not in known or not is_unchanged(path, known[path.stem])]
