"""Runs in the folder of a sweep: those that a plan asks for, and those that lie there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from beyonddrive.engine.config_files import find_config
from beyonddrive.engine.config_values import OptionText
from beyonddrive.engine.configs import load_config
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.sweeps.plan import LOADERS, Row, SweepError, SweepPlan
from beyonddrive.engine.sweeps.records import (
    DATA,
    FAILURE,
    RECORD,
    check_record,
    out_of_date,
    read_failure,
    read_record,
)
from beyonddrive.engine.sweeps.runs import Finished, Outcome, Run
from beyonddrive.engine.wrapped_datasets import unwrapped_settings
from beyonddrive.structures.errors import BeyondDriveError

_UNTRAINED = "untrained"
_SEED = "seed"
_AGAIN = "; the same command judges it again"


class Recipe(NamedTuple):
    """The config of a row as it was read.

    Attributes:
        config: Its file.
        digest: Hash of all its values.
        is_trained: Whether it has a training.
        loaders: Loaders that it can be judged on.
        filters: File of the scene filter by loader, of those that have one.
        best: Figures of the validation for each of which it keeps the best checkpoint.
    """

    config: str
    digest: str
    is_trained: bool
    loaders: tuple[str, ...]
    filters: Mapping[str, Path]
    best: tuple[str, ...] = ()


class Recipes:
    """Configs of rows, each read once.

    Args:
        out: Folder of the sweep; configs of rows with further bases are written to the folder of the row.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._read: dict[str, Recipe] = {}

    def of(self, row: Row) -> Recipe:
        """The config of a row.

        Raises:
            ConfigError: If it cannot be read, or an option does not fit it.
            SweepError: If it puts checkpoints elsewhere than into the folders of the runs.
        """
        if row.name not in self._read:
            self._read[row.name] = self._recipe_of(row)
        return self._read[row.name]

    def _recipe_of(self, row: Row) -> Recipe:
        path = row.config
        if row.bases:
            bases = [str(find_config(name).resolve()) for name in (row.config, *row.bases)]
            file = self.out / "runs" / row.slug / "config.py"
            text = (
                f"# {row.name}: base configs, merged in this order.\n_base_ = {json.dumps(bases, indent=4)}\n"
            )
            if not file.exists() or file.read_text() != text:
                write_atomically(file, text.encode())
            path = str(file)
        config = load_config(path, {key: OptionText(value) for key, value in row.options.items()})
        parts = ("dataloader", "evaluator")
        loaders = [name for name in LOADERS if all(config.get(f"{name}_{part}") for part in parts)]
        filters = {}
        for name in loaders:
            datasets = unwrapped_settings(config[f"{name}_dataloader"].dataset)
            if len(datasets) == 1 and isinstance(file := datasets[0].get("scene_filter"), str):
                filters[name] = Path(file)
        is_trained = config.get("train_cfg") is not None
        hook = (config.get("default_hooks") or {}).get("checkpoint") or {}
        if is_trained and hook.get("out_dir"):
            raise SweepError(
                f"rows.{row.name}: default_hooks.checkpoint.out_dir of its config is {hook['out_dir']}, "
                "where runs of a sweep would write over each other's checkpoints; set it to None in its "
                "options"
            )
        kept = hook.get("save_best") or ()
        best = (kept,) if isinstance(kept, str) else tuple(kept)
        return Recipe(path, recipe_digest(config), is_trained, tuple(loaders), filters, best)


def recipe_digest(config: Config) -> str:
    """Hash of all values of a config, by which recipes are told apart."""
    return hashlib.blake2b(config.dump().encode(), digest_size=8).hexdigest()


def runs_of(plan: SweepPlan, out: Path, recipes: Recipes | None = None) -> list[Run]:
    """Every run of a plan, seed by seed, so that an early stop leaves the rows comparable.

    Each has one thread and no GPU, until a place to carry it out is chosen.

    A row without a training has one run, and is judged on those of the loaders that its config has.

    Raises:
        SweepError: If a folder holds a run that was made from another config, the best checkpoint is to be
            judged and a row keeps none or several, or a config puts checkpoints into a folder of its own.
        ConfigError: If a config cannot be read, or an option does not fit it.
    """
    recipes = recipes or Recipes(out)
    runs = []
    for position, seed in enumerate(plan.seeds):
        for row in plan.rows:
            run = _run_of(plan, row, seed, recipes)
            if run.is_trained or not position:
                runs.append(run)
    for run in runs:
        check_record(run)
    return runs


def scene_filter_of(plan: SweepPlan, recipes: Recipes) -> Path | None:
    """Scene filter of the loader that is judged first, by the first row that has one; None if none has.

    Raises:
        ConfigError: As :meth:`Recipes.of`.
    """
    found = (recipes.of(row).filters.get(plan.loaders[0]) for row in plan.rows)
    return next((path for path in found if path is not None), None)


def _run_of(plan: SweepPlan, row: Row, seed: int, recipes: Recipes) -> Run:
    """A run, whose place nobody has chosen yet."""
    recipe = recipes.of(row)
    other = plan.row(row.weights) if row.weights else None
    trained = recipes.of(other or row)
    is_trained = trained.is_trained
    if is_trained and plan.checkpoint == "best" and len(trained.best) != 1:
        raise SweepError(
            f"checkpoint: best: row '{(other or row).name}' keeps those by "
            f"{', '.join(trained.best) or 'none'} of the figures of its validation, and a sweep judges one "
            "checkpoint: set default_hooks.checkpoint.save_best to one figure, such as pdms/PDMS"
        )
    folder = recipes.out / "runs" / row.slug / (f"{_SEED}{seed}" if is_trained else _UNTRAINED)
    loaders, further = plan.loaders, plan.further
    if not is_trained:
        # (with none of them it is left to fail: what is lacking is told, and the other runs go on)
        loaders = tuple(name for name in loaders if name in recipe.loaders) or loaders
        further = further if loaders[0] == plan.loaders[0] else ()
    return Run(
        row.name, seed, recipe.config, dict(row.options), folder, recipe.digest, is_trained, loaders,
        plan.checkpoint, further=further,
        weights=recipes.out / "runs" / other.slug / folder.name if other else None,
        weights_recipe=recipes.of(other).digest if other else None,
        bases=(row.config, *row.bases) if row.bases else (),
    )  # fmt: skip


def found_runs(plan: SweepPlan, recipes: Recipes) -> tuple[list[Finished], dict[tuple[str, int], str]]:
    """What lies in the folder of a sweep of a plan's rows, whatever seeds it has.

    Returns:
        Runs with scores of what their rows are now, in the order of the rows, with the loaders of all whose
        scenes they have scores; and by row and seed what is to be told of runs that failed or lack some.
    """
    finished, told = [], {}
    for row in plan.rows:
        for seed, folder in _folders(recipes.out / "runs" / row.slug):
            key = row.name, plan.seeds[0] if seed is None else seed
            try:
                run = _run_of(plan, row, key[1], recipes)
                check_record(run)
                record, failure = read_record(run), read_failure(run)
                stale = None if record is None else out_of_date(run, record)
            except (BeyondDriveError, ImportError) as error:
                told[key] = str(error)
                continue
            if run.folder != folder:
                told[key] = f"{folder}: was made when the row was trained in another way; delete this folder"
                continue
            has = tuple(loader for loader in run.loaders if run.is_judged(loader))
            lacking = run.lacking()
            if failure is not None:
                told[key] = failure
            elif stale is not None:
                told[key] = stale + _AGAIN
            elif record is not None and lacking:
                told[key] = f"has no scores on {lacking}" + _AGAIN
            if record is not None and stale is None and has:
                seconds, checkpoint = record["seconds"], record["checkpoint"]
                outcome = Outcome(row.name, run.seed, folder, seconds, checkpoint, data=record.get(DATA))
                finished.append(Finished(replace(run, loaders=has), outcome))
    return finished, told


def _folders(row: Path) -> Iterator[tuple[int | None, Path]]:
    """Folders of the runs of a row that are complete or failed, with their seeds; None for untrained ones."""
    found: list[tuple[int | None, Path]] = []
    for path in row.glob("*"):
        if not (path / RECORD).exists() and not (path / FAILURE).exists():
            continue
        if path.name == _UNTRAINED:
            found.append((None, path))
        elif path.name.startswith(_SEED) and path.name[len(_SEED) :].isdecimal():
            found.append((int(path.name[len(_SEED) :]), path))
    yield from sorted(found, key=lambda item: -1 if item[0] is None else item[0])
