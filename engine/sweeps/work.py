"""One run of a sweep: train a row with a seed, then judge its checkpoint, each as a command of its own.

A row with the ``weights`` of another judges the checkpoint of that row's training and trains nothing.

A run is a folder that goes on where it was killed. It is complete when its ``run.json`` is there, which says
what it was made from; a run that was made from another config is refused, not reused, and scores of another
checkpoint than is there now are made again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from beyonddrive.engine.environment import environment, utc_day
from beyonddrive.engine.executors import end_command_with_parent
from beyonddrive.engine.files import LockedError, file_lock
from beyonddrive.engine.runner import find_last_checkpoint
from beyonddrive.engine.sweeps.data import data_of
from beyonddrive.engine.sweeps.plan import LOADERS, SweepError
from beyonddrive.engine.sweeps.records import (
    CHECKPOINT_DIGEST,
    DATA,
    DATE,
    RECORD,
    WEIGHTS_RECIPE,
    begin_training,
    date_of,
    end_judging,
    end_training,
    forget_failure,
    is_complete,
    judged_by_weights,
    judging_of,
    made_from,
    note_failure,
    note_judging,
    out_of_date,
    read_record,
    seconds_of_judging,
    write_record,
)
from beyonddrive.engine.sweeps.runs import Outcome, Run, failed_scenes
from beyonddrive.structures.digests import sha256_of

LOG = "log.txt"
_TAIL = 12
"""Lines of a log in which the reason of a failure is looked for."""
_GPU_WAIT = 0.5
"""Seconds between two looks for a free GPU."""


def carry_out(run: Run) -> Outcome:
    """Train and judge, unless that is done; what goes wrong is told and kept, not raised."""
    record = None
    try:
        record = read_record(run)
        if record is not None and is_complete(run, record):
            outcome = Outcome(run.row, run.seed, run.folder, record["seconds"], record["checkpoint"])
        else:
            with file_lock(run.folder / ".lock", wait=False), _gpu(run) as gpu:
                outcome = _carry_out(run, gpu, record)
        forget_failure(run)
        return outcome
    except LockedError:
        error = f"{run.folder}: another process works in it; wait for it"
        return Outcome(run.row, run.seed, run.folder, {}, error=error)
    except subprocess.CalledProcessError as failed:
        verb = " ".join(failed.cmd[2:4])
        error = f"{verb} ended with {failed.returncode}: {_reason(run.folder / LOG)}"
    except (OSError, ValueError, RuntimeError) as failed:
        error = str(failed)
    if record is not None:
        lacking = run.lacking()
        error = f"{lacking}: {error}" if lacking else error
    note_failure(run, error)
    return Outcome(run.row, run.seed, run.folder, {}, error=error)


def _carry_out(run: Run, gpu: str | None, record: Mapping[str, Any] | None) -> Outcome:
    """Train and judge; of a run that has a record only the scores that it lacks are made.

    All scores are made again if they are of another checkpoint than is there now.
    """
    options = [f"{key}={value}" for key, value in run.options.items()]
    options.append(f"num_threads={run.threads}")
    options = ["--cfg-options", *options]
    if run.weights is not None and not (run.weights / RECORD).exists():
        raise SweepError(f"{run.weights}: is not trained yet, and row '{run.row}' judges its checkpoint")
    seconds: dict[str, float] = dict(record["seconds"]) if record else {}
    if run.trains and record is None:
        begin_training(run)
        place = ["--work-dir", str(run.work_dir), "--resume", "--seed", str(run.seed)]
        _call(run, gpu, ["train", run.config, *place, *options])
        seconds["train"] = end_training(run)
    checkpoint = _chosen(run) if run.is_trained else None
    digest = None if checkpoint is None else _digest(run, checkpoint)
    stale = None
    if record is not None:
        stale = out_of_date(run, record)
        if stale is None and record.get(CHECKPOINT_DIGEST, digest) != digest:
            stale = f"{checkpoint} is another one now than was judged"
    if stale is not None:
        # Not complete from here on, so that a try that is killed leaves no mixture behind.
        (run.folder / RECORD).unlink()
        seconds = {name: took for name, took in seconds.items() if name == "train"}
        record = None
    judging = judging_of(run, digest)
    if record is None:
        if (judged := seconds_of_judging(run, judging)) is None:
            _forget_scores(run)
        seconds = {**(judged or {}), **seconds}
        note_judging(run, judging, seconds)
    weights = [str(checkpoint)] if checkpoint else []
    note = None if stale is None else f"judged again: {stale}"
    if record is not None and any(failed_scenes(run.results(*judgement)) for judgement in run.judgements):
        note = f"judged again: had no scores on {run.lacking()}"
    for loader, basis in run.open_judgements:
        start = time.perf_counter()
        results = run.results(loader, basis)
        place = ["--work-dir", str(run.folder / loader), "--out", str(results), "--loader", loader]
        place += ["--basis", basis] if basis else []
        _call(run, gpu, ["test", run.config, *weights, *place, *options])
        seconds[results.stem] = time.perf_counter() - start
        if record is None:
            note_judging(run, judging, seconds)
    name = checkpoint.name if checkpoint else None
    told = {
        **made_from(run),
        "checkpoint": name,
        CHECKPOINT_DIGEST: digest,
        "weights": run.trained_by,
        WEIGHTS_RECIPE: run.weights_recipe,
        DATA: data_of(run.work_dir, checkpoint) if run.trains and checkpoint else None,
        "seconds": seconds,
        DATE: utc_day(),
        "made_with": environment(),
    }
    if record is not None:  # (some of the scores are of then, and what nobody told of them stays untold)
        known = (CHECKPOINT_DIGEST, WEIGHTS_RECIPE, DATA)
        told = {key: value for key, value in told.items() if key in record or key not in known}
        if DATA in record:  # (files that were copied since have other times)
            told[DATA] = record[DATA]
        told[DATE] = date_of(run, record)
        told["loaders"] = list(dict.fromkeys([*record["loaders"], *run.loaders]))
        told["made_with"] = record.get("made_with", told["made_with"])
    write_record(run, told)
    end_judging(run)
    return Outcome(run.row, run.seed, run.folder, seconds, name, note=note)


def _forget_scores(run: Run) -> None:
    """Remove all scores of a run of which nobody knows of which checkpoint they are.

    Those that are not asked for now would count later, as if they were of the one that is judged now.
    """
    patterns = [f"{loader}{end}" for loader in LOADERS for end in (".csv*", "-*.csv*")]
    for path in [path for pattern in patterns for path in run.folder.glob(pattern)]:
        if path.is_file():
            path.unlink()


def _digest(run: Run, checkpoint: Path) -> str:
    """Checksum of the checkpoint that is judged.

    Raises:
        SweepError: If the run that trained it was judged with another one.
    """
    digest = sha256_of(checkpoint)
    if judged_by_weights(run) not in (None, digest):
        raise SweepError(
            f"{checkpoint}: is another one than row '{run.trained_by}' was judged with; delete "
            f"{run.weights}/{RECORD}, so that both are judged again"
        )
    return digest


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


def _call(run: Run, gpu: str | None, words: Sequence[str]) -> None:
    """Run a verb; its output goes to the log of the run.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    threads = str(run.threads)
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    if gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpu
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("ab") as log:
        command = [sys.executable, "-m", "beyonddrive", *words]
        subprocess.run(
            command, check=True, stdout=log, stderr=log, env=env, preexec_fn=end_command_with_parent
        )


def _reason(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()[-_TAIL:]
    except OSError as error:
        return str(error)
    told = [line.strip() for line in lines if line.strip()]
    return f"{told[-1]} ({log})" if told else f"nothing in {log}"


@contextlib.contextmanager
def _gpu(run: Run) -> Iterator[str | None]:
    """A GPU that is free for one more run, as ``CUDA_VISIBLE_DEVICES`` calls it; None on a machine without.

    Of a sweep that is given some of the GPUs by that variable, it is one of these.
    """
    if not run.gpus:
        yield None
        return
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    gpus = visible[: run.gpus] if visible != [""] else [str(number) for number in range(run.gpus)]
    places = [(gpu, share) for share in range(run.jobs_per_gpu) for gpu in gpus]
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
