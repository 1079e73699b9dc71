"""One run of a sweep: train a row with a seed, then judge its checkpoint, each as a command of its own.

A row with the ``weights`` of another judges the checkpoint of that row's training and trains nothing.

A run is a folder that goes on where it was killed. It is complete when its ``run.json`` is there, which says
what it was made from; a run that was made from another config is refused, not reused.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beyonddrive.engine.config_files import find_config
from beyonddrive.engine.config_values import OptionText
from beyonddrive.engine.configs import load_config
from beyonddrive.engine.environment import environment
from beyonddrive.engine.files import LockedError, file_lock, write_atomically
from beyonddrive.engine.runner import find_last_checkpoint
from beyonddrive.engine.sweeps.plan import Checkpoint, Row, SweepError, SweepPlan

RECORD = "run.json"
LOG = "log.txt"
_TAIL = 12
"""Lines of a log in which the reason of a failure is looked for."""
_GPU_WAIT = 0.5
"""Seconds between two looks for a free GPU."""


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
        gpus: GPUs of the machine.
        jobs_per_gpu: Runs that share a GPU.
        weights: Folder of another run, the checkpoint of whose training it judges; None for its own.
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
    threads: int
    gpus: int = 0
    jobs_per_gpu: int = 1
    further: tuple[str, ...] = ()
    weights: Path | None = None

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
        seconds: Of training and judging by name, over all tries of this run that ended well.
        checkpoint: Name of the checkpoint that was judged; None for a row without weights.
        error: Why there are no scores; None if all went well.
    """

    row: str
    seed: int
    folder: Path
    seconds: Mapping[str, float]
    checkpoint: str | None = None
    error: str | None = None


def runs_of(plan: SweepPlan, out: Path, threads: int, gpus: int = 0, jobs_per_gpu: int = 1) -> list[Run]:
    """Every run of a plan, seed by seed, so that an early stop leaves the rows comparable.

    Configs are read, and those of rows with further bases written to the folder of the row.

    Raises:
        SweepError: If a folder holds a run that was made from another config.
        ConfigError: If a config cannot be read, or an option does not fit it.
    """
    read = {row.name: _config_of(row, out) for row in plan.rows}
    runs = []
    for position, seed in enumerate(plan.seeds):
        for row in plan.rows:
            path, recipe, _ = read[row.name]
            is_trained = read[row.weights or row.name][2]
            if position and not is_trained:
                continue
            folder = out / "runs" / row.slug / (f"seed{seed}" if is_trained else "untrained")
            options = dict(row.options)
            weights = out / "runs" / plan.row(row.weights).slug / folder.name if row.weights else None
            runs.append(
                Run(row.name, seed, path, options, folder, recipe, is_trained, plan.loaders, plan.checkpoint,
                    threads, gpus, jobs_per_gpu, plan.further, weights)
            )  # fmt: skip
    for run in runs:
        _check_record(run)
    return runs


def _config_of(row: Row, out: Path) -> tuple[str, str, bool]:
    """Config of a row, the hash of all its values, and whether it is trained."""
    path = row.config
    if row.bases:
        bases = [str(find_config(name).resolve()) for name in (row.config, *row.bases)]
        file = out / "runs" / row.slug / "config.py"
        text = f"# {row.name}: base configs, merged in this order.\n_base_ = {json.dumps(bases, indent=4)}\n"
        if not file.exists() or file.read_text() != text:
            write_atomically(file, text.encode())
        path = str(file)
    config = load_config(path, {key: OptionText(value) for key, value in row.options.items()})
    digest = hashlib.blake2b(config.dump().encode(), digest_size=8).hexdigest()
    return path, digest, config.get("train_cfg") is not None


def _check_record(run: Run) -> None:
    record = read_record(run)
    if record is None:
        return
    made_from = (record["recipe"], record["checkpoint_rule"], record.get("weights"))
    if made_from != (run.recipe, run.checkpoint, run.trained_by):
        raise SweepError(
            f"{run.folder / RECORD}: was made from another config, weights or rule of checkpoints than row "
            f"'{run.row}' has now; give another --out, or delete this folder"
        )


def read_record(run: Run) -> dict[str, object] | None:
    """What a trained and judged run says of itself; None if it is not complete.

    A complete run can lack scores that are asked for now, such as those on a further basis.

    Raises:
        SweepError: If the record is damaged.
    """
    path = run.folder / RECORD
    if not path.exists():
        return None
    try:
        record: dict[str, object] = json.loads(path.read_text())
        for key in ("recipe", "checkpoint_rule", "checkpoint", "seconds", "loaders"):
            record[key]
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SweepError(f"{path}: damaged ({error!r}); delete this folder") from error


def carry_out(run: Run) -> Outcome:
    """Train and judge, unless that is done; what goes wrong is told, not raised."""
    try:
        record = read_record(run)
        if record is not None and not run.open_judgements:
            seconds, checkpoint = record["seconds"], record["checkpoint"]
            assert isinstance(seconds, dict) and (checkpoint is None or isinstance(checkpoint, str))
            return Outcome(run.row, run.seed, run.folder, seconds, checkpoint)
        with file_lock(run.folder / ".lock", wait=False), _gpu(run) as gpu:
            return _carry_out(run, gpu, record)
    except LockedError:
        error = f"{run.folder}: another process works in it; wait for it"
    except subprocess.CalledProcessError as failed:
        verb = " ".join(failed.cmd[2:4])
        error = f"{verb} ended with {failed.returncode}: {_reason(run.folder / LOG)}"
    except (OSError, ValueError, RuntimeError) as failed:
        error = str(failed)
    return Outcome(run.row, run.seed, run.folder, {}, error=error)


def _carry_out(run: Run, gpu: int | None, record: Mapping[str, object] | None) -> Outcome:
    """Train and judge; of a run that has a record only the scores that it lacks are made."""
    seconds: dict[str, float] = dict(record["seconds"]) if record else {}  # type: ignore[call-overload]
    options = [f"{key}={value}" for key, value in run.options.items()]
    options.append(f"num_threads={run.threads}")
    options = ["--cfg-options", *options]
    checkpoint: Path | None = None
    if run.weights is not None and not (run.weights / RECORD).exists():
        raise SweepError(f"{run.weights}: is not trained yet, and row '{run.row}' judges its checkpoint")
    if run.is_trained and run.weights is None and record is None:
        start = time.perf_counter()
        place = ["--work-dir", str(run.work_dir), "--resume", "--seed", str(run.seed)]
        _call(run, gpu, ["train", run.config, *place, *options])
        seconds["train"] = time.perf_counter() - start
    if run.is_trained:
        checkpoint = _chosen(run)
    weights = [str(checkpoint)] if checkpoint else []
    for loader, basis in run.judgements if record is None else run.open_judgements:
        start = time.perf_counter()
        results = run.results(loader, basis)
        place = ["--work-dir", str(run.folder / loader), "--out", str(results), "--loader", loader]
        place += ["--basis", basis] if basis else []
        _call(run, gpu, ["test", run.config, *weights, *place, *options])
        seconds[results.stem] = time.perf_counter() - start
    name = checkpoint.name if checkpoint else None
    outcome = Outcome(run.row, run.seed, run.folder, seconds, name)
    told = {
        "row": run.row,
        "seed": run.seed,
        "config": run.config,
        "options": dict(run.options),
        "recipe": run.recipe,
        "checkpoint_rule": run.checkpoint,
        "checkpoint": name,
        "weights": run.trained_by,
        "loaders": list(run.loaders),
        "seconds": seconds,
        "made_with": record["made_with"] if record and "made_with" in record else environment(),
    }
    write_atomically(run.folder / RECORD, json.dumps(told, indent=2).encode())
    return outcome


def _chosen(run: Run) -> Path:
    """The checkpoint that is judged.

    Raises:
        SweepError: If the training left none.
    """
    if run.checkpoint == "last":
        found = find_last_checkpoint(run.work_dir)
    else:
        best = sorted(run.work_dir.glob("best_*.pth"), key=lambda path: path.stat().st_mtime)
        found = best[-1] if best else None
    if found is None:
        raise SweepError(f"{run.work_dir}: the training left no {run.checkpoint} checkpoint")
    return found


def _call(run: Run, gpu: int | None, words: Sequence[str]) -> None:
    """Run a verb; its output goes to the log of the run.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    threads = str(run.threads)
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    if gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = str(gpu)
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("ab") as log:
        command = [sys.executable, "-m", "beyonddrive", *words]
        subprocess.run(command, check=True, stdout=log, stderr=log, env=env, preexec_fn=_end_with_parent)


def _end_with_parent() -> None:
    """Ask the kernel to end this process with its parent: a killed sweep leaves no training behind."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _reason(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()[-_TAIL:]
    except OSError as error:
        return str(error)
    told = [line.strip() for line in lines if line.strip()]
    return f"{told[-1]} ({log})" if told else f"nothing in {log}"


@contextlib.contextmanager
def _gpu(run: Run) -> Iterator[int | None]:
    """A GPU that is free for one more run; None on a machine without."""
    if not run.gpus:
        yield None
        return
    places = [(gpu, share) for share in range(run.jobs_per_gpu) for gpu in range(run.gpus)]
    folder = run.folder.parents[2] / ".gpus"
    while True:
        for gpu, share in places:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(file_lock(folder / f"{gpu}.{share}", wait=False))
                except LockedError:
                    continue
                yield gpu
                return
        time.sleep(_GPU_WAIT)
