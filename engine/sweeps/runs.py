"""A run of a sweep: a row with a seed, where all of it goes, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        """Those whose scores are not there."""
        return [
            (loader, basis) for loader, basis in self.judgements if not self.results(loader, basis).exists()
        ]

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
    """

    row: str
    seed: int
    folder: Path
    seconds: Mapping[str, float]
    checkpoint: str | None = None
    error: str | None = None
    note: str | None = None


class Finished(NamedTuple):
    """A run and what became of it."""

    run: Run
    outcome: Outcome
