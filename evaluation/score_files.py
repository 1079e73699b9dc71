"""Scores on their way to a file: in parts on disk, so that memory stays flat and killed jobs go on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.stores.manifests import StoreError, StoreKind
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.engine.environment import write_made_with
from beyonddrive.engine.files import LockedError, atomic_file, file_lock
from beyonddrive.evaluation.plan_files import write_arrays
from beyonddrive.evaluation.scene_scoring import SceneScores
from beyonddrive.evaluation.score_labels import Basis, ScoreLabel
from beyonddrive.structures.plan import SCORER_VERSION
from beyonddrive.version import __version__

KIND = StoreKind("scores", "beyonddrive score")
PART_SIZE = 256
"""Scenes per part."""
PART_SECONDS = 10.0
"""A part is written after so many seconds, however few scenes are in it."""
_FAILURES = "failures"
_LOG = "log"
_MAX_OPEN = 64


class ScoreParts:
    """The parts of one file of scores; see :func:`open_parts`.

    Args:
        folder: Where the parts are.
        config: What the scores depend on. Parts of a job with another one are thrown away.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self._config = dict(config)
        try:
            ShardStore(folder, KIND, self._config)
        except StoreError:
            shutil.rmtree(folder, ignore_errors=True)
        self._writer = ShardWriter(folder, KIND, self._config, "an unfinished job")
        done = ShardStore(folder, KIND, self._config)
        self.done = frozenset(done.tokens)
        self._count = len(done.indices)
        self._waiting: dict[str, dict[str, NDArray[Any]]] = {}
        self._last = time.monotonic()

    def add(self, result: SceneScores) -> None:
        """Keep the scores of a scene; what is not written yet is lost when the process is killed."""
        assert result.values is not None
        log_name = np.frombuffer(result.log_name.encode(), np.uint8)
        record: dict[str, NDArray[Any]] = {"values": result.values, _LOG: log_name}
        if result.failures is not None:
            record[_FAILURES] = np.frombuffer(json.dumps(result.failures).encode(), np.uint8)
        self.keep(result.token, record)

    def keep(self, token: str, record: dict[str, NDArray[Any]]) -> None:
        """As :meth:`add`, for a scene of which more is kept than its scores."""
        self._waiting[token] = record
        if len(self._waiting) >= PART_SIZE or time.monotonic() - self._last >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            self._writer.write(f"part-{self._count:06d}", self._waiting)
            self._count += 1
        self._waiting, self._last = {}, time.monotonic()

    def records(self) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
        """All scenes that were kept, by now and before."""
        self.flush()
        store = ShardStore(self.folder, KIND, self._config, _MAX_OPEN)
        for token in store.tokens:
            yield token, store[token]

    def remove(self) -> None:
        """Delete the parts, once what is made of them has been written."""
        shutil.rmtree(self.folder)

    def finish(
        self,
        tokens: Iterable[str],
        out: Path,
        failures_out: Path | None = None,
        basis: Basis | None = None,
        progress: str = "pair",
        digest: Callable[[Iterable[tuple[str, str]]], str] | None = None,
    ) -> tuple[int, int]:
        """Write the files from all parts, in the order of the tokens, and delete the parts.

        What is labelled was kept by :meth:`add`, which knows the logs.

        Args:
            tokens: Scenes; those without scores are passed over.
            out: npz archive of scores to write.
            failures_out: JSON file to write: token -> one list of failures per plan.
            basis: What the scores are; their label then goes into the comment of the archive.
            progress: As of the label.
            digest: Digest of what the logs of scenes hold, from token and log name of each, as of
                :meth:`beyonddrive.evaluation.metric_caches.MetricCaches.logs_digest`; goes into the label.

        Returns:
            How many scenes have scores, and how many plans.
        """
        self.flush()
        store = ShardStore(self.folder, KIND, self._config, _MAX_OPEN)
        present = [token for token in tokens if token in store]
        num_plans = 0

        def scores() -> Iterator[tuple[str, NDArray[Any]]]:
            nonlocal num_plans
            for token in present:
                values = store[token]["values"]
                num_plans += len(values)
                yield token, values

        data = ""
        if digest is not None:
            data = digest((token, store[token][_LOG].tobytes().decode()) for token in present)
        label = None if basis is None else ScoreLabel.of(basis, present, progress, data)
        write_arrays(out, scores(), label)
        write_made_with(out)
        if failures_out is not None:
            with atomic_file(failures_out) as file:
                for number, token in enumerate(present):
                    file.write(f"{',' if number else '{'}\n{json.dumps(token)}: ".encode())
                    file.write(store[token][_FAILURES].tobytes())
                file.write(b"\n}\n" if present else b"{}\n")
            write_made_with(failures_out)
        self.remove()
        return len(present), num_plans


@contextmanager
def open_parts(out: Path, config: Mapping[str, Any]) -> Iterator[ScoreParts]:
    """Start or continue a file of scores; one process at a time does.

    Args:
        out: The file that will be written; its parts are in a hidden folder beside it.
        config: What the scores depend on, as JSON values.

    Raises:
        StoreError: If another process is writing the same file.
    """
    out = Path(out)
    try:
        with file_lock(out.with_name(f".{out.name}.lock"), wait=False):
            yield ScoreParts(out.with_name(f".{out.name}.parts"), config)
    except LockedError as error:
        raise StoreError(f"{out}: another job is writing this file; give --out another name") from error


def describe_inputs(
    root: NavsimRoot, split: str, plans: Path | None, more: Iterable[Path] = ()
) -> dict[str, Any]:
    """What scores depend on besides their settings, without reading it: sizes and times of all files.

    Args:
        root: Where logs and maps are.
        split: Split of the logs.
        plans: The file of plans, if there is one.
        more: Other files that are read.
    """
    # (folders of maps may be links, which a search through all folders would not follow)
    maps = [*root.maps_root.glob("*.json"), *root.maps_root.glob("*/*/*.gpkg")]
    lines = []
    given = [] if plans is None else [plans]
    for path in [*given, *root.log_paths(split), *sorted(maps), *more]:
        try:
            state = path.stat()
        except OSError as error:  # such as a link to nowhere; whoever reads the file says so
            lines.append(f"{path.name} {error.errno}")
            continue
        lines.append(f"{path.name} {state.st_size} {state.st_mtime_ns}")
    return {
        "release": __version__,
        "scorer_version": SCORER_VERSION,
        "split": split,
        "data_root": str(root.root.resolve()),
        "maps_root": str(root.maps_root.resolve()),
        "inputs": blake2b("\n".join(lines).encode(), digest_size=16).hexdigest(),
    }
