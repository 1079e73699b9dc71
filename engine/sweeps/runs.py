"""A run of a sweep: a row with a seed, where all of it goes, and what became of it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from beyonddrive.engine.sweeps.plan import Checkpoint


@dataclass(frozen=True)
class Run:
    """A row with a seed.

    Attributes:
        row: Name of the row.
        seed: Seed of the training.
        config: File of the row's config.
        options: Values of ``--cfg-options``.
        folder: Where all of the run goes.
        recipe: Hash of the config with all its values, seed aside.
        is_trained: Whether what it judges comes of a training.
        loaders: Loaders on which it is judged.
        further: Further bases on which it is judged on the first of them.
        checkpoint: Which checkpoint is judged.
        threads: Threads of its processes.
        gpus: GPUs of the machine, of which it takes a free one; 0 leaves that to the environment.
        jobs_per_gpu: Runs that share a GPU.
        weights: Folder of another run, the checkpoint of whose training it judges; None for its own.
        weights_recipe: The ``recipe`` of that run; None for its own.
        bases: Configs that ``config`` was merged from, as the plan names them; none if it is the row's own.
    """

    row: str
    seed: int
    config: str
    options: Mapping[str, str]
    folder: Path
    recipe: str
    is_trained: bool
    loaders: tuple[str, ...]
    checkpoint: Checkpoint
    threads: int = 1
    gpus: int = 0
    jobs_per_gpu: int = 1
    further: tuple[str, ...] = ()
    weights: Path | None = None
    weights_recipe: str | None = None
    bases: tuple[str, ...] = ()

    def results(self, loader: str, basis: str = "") -> Path:
        """Scores by scene on a loader, by the metric of the config or on a basis."""
        return self.folder / f"{'-'.join(filter(None, (loader, basis)))}.csv"

    @property
    def judgements(self) -> list[tuple[str, str]]:
        """Loaders and bases on which it is judged; an empty basis is the metric of the config."""
        own = [(loader, "") for loader in self.loaders]
        return [*own, *((self.loaders[0], basis) for basis in self.further)]

    @property
    def open_judgements(self) -> list[tuple[str, str]]:
        """Those whose scores are not there, or not of all scenes."""
        return [judgement for judgement in self.judgements if not self.is_judged(*judgement)]

    def is_judged(self, loader: str, basis: str = "") -> bool:
        """Whether every scene has its scores."""
        results = self.results(loader, basis)
        return results.is_file() and not failed_scenes(results)

    def lacking(self) -> str:
        """What has no scores, for readers; of scores that are there without some scenes, why."""
        told = []
        for loader, basis in self.open_judgements:
            results = self.results(loader, basis)
            told.append(results.stem)
            if failed := failed_scenes(results):
                name, reason = next(iter(failed.items()))
                told[-1] += f" ({len(failed)} scenes without, such as {name}: {reason})"
        return ", ".join(told)

    @property
    def trains(self) -> bool:
        """Whether it has a training of its own."""
        return self.is_trained and self.weights is None

    @property
    def work_dir(self) -> Path:
        """Checkpoints and logs of the training."""
        return (self.weights or self.folder) / "train"

    @property
    def trained_by(self) -> str | None:
        """Folder of the row whose training it judges; None for its own."""
        return None if self.weights is None else self.weights.parent.name


def failed_scenes(results: Path) -> Mapping[str, str]:
    """Scenes of a file of scores that have none, and logs that are lost as a whole, with the reason.

    Nothing if there is no such file.
    """
    if not results.is_file():
        return {}
    state = results.stat()
    return _failed_scenes(results, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _failed_scenes(results: Path, size: int, time_ns: int) -> Mapping[str, str]:
    """As :func:`failed_scenes`; a file is read once while it stays as it is."""
    with results.open(encoding="utf-8-sig", newline="") as file:
        failed = [line for line in csv.DictReader(file) if line.get("error")]
    return {line.get("token") or line.get("log") or "": line["error"] for line in failed}


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        row: Name of the row.
        seed: Seed of the training.
        folder: Folder of the run.
        seconds: Of training and judging by name, over all tries; those of a training that was killed count up
            to its last checkpoint.
        checkpoint: Name of the checkpoint that was judged; None for a row without weights.
        error: Why there are no scores; None if all went well.
        note: What else is to be told; None for nothing.
        data: Digest of what the training read; None if nobody told it.
    """

    row: str
    seed: int
    folder: Path
    seconds: Mapping[str, float]
    checkpoint: str | None = None
    error: str | None = None
    note: str | None = None
    data: str | None = None


class Finished(NamedTuple):
    """A run and what became of it."""

    run: Run
    outcome: Outcome


def differing_data(read: Iterable[tuple[str, int, str | None]]) -> list[str]:
    """Rows whose seeds were trained on different data, such as a pool that was mined again between them.

    Args:
        read: Row, seed and digest of what was read, for each run.

    Returns:
        A text for each, where seeds that are alike stand together: ``LTF (seeds 0, 1 | 2)``. Runs that do not
        tell what they read are passed over.
    """
    seeds: dict[str, dict[str, list[str]]] = {}
    for row, seed, data in read:
        if data is not None:
            seeds.setdefault(row, {}).setdefault(data, []).append(str(seed))
    return [
        f"{row} (seeds {' | '.join(', '.join(alike) for alike in found.values())})"
        for row, found in seeds.items()
        if len(found) > 1
    ]
