"""What the folder of a run tells: what it was made from, what its training took, why it failed.

``run.json`` makes a run complete. ``training.json`` is there from before a training, so that one that was
killed goes on as what it began, and ``judging.json`` from before the first judgement to the last, so that
what a killed one has judged is not judged again. ``failed.txt`` is there from a failure to the next success.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from beyonddrive.engine.environment import utc_day
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.sweeps.plan import SweepError
from beyonddrive.engine.sweeps.runs import Run

RECORD = "run.json"
TRAINING = "training.json"
JUDGING = "judging.json"
FAILURE = "failed.txt"
CHECKPOINT_DIGEST = "checkpoint_sha256"
"""Key of a record: the checksum of the checkpoint that was judged; records of version 0.2 have none."""
WEIGHTS_RECIPE = "weights_recipe"
"""Key of a record: the recipe of the row whose checkpoint was judged; records of version 0.2 have none."""
DATA = "data"
"""Key of a record: the digest of what the training read; records of version 0.2 have none."""
BASES = "bases"
"""Key of a record: what ``config`` was merged from, if it was; records of version 0.2 have none."""
DATE = "date"
"""Key of a record: the day (UTC) on which the run was judged; records of version 0.2 have none."""


def read_record(run: Run) -> dict[str, Any] | None:
    """What a trained and judged run says of itself; None if it is not complete.

    A complete run can lack scores that are asked for now, such as those on a further basis.

    Raises:
        SweepError: If the record is damaged.
    """
    return _read(run.folder / RECORD, ("recipe", "checkpoint_rule", "checkpoint", "seconds", "loaders"))


def _read(path: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        for key in keys:
            record[key]
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SweepError(f"{path}: damaged ({error!r}); delete this folder") from error


def made_from(run: Run) -> dict[str, Any]:
    """What a record tells of the run itself, whoever trained and judged it."""
    return {
        "row": run.row,
        "seed": run.seed,
        "config": run.config,
        BASES: list(run.bases),
        "options": dict(run.options),
        "recipe": run.recipe,
        "checkpoint_rule": run.checkpoint,
        "loaders": list(run.loaders),
    }


def write_record(run: Run, told: Mapping[str, Any]) -> None:
    """Make a run complete."""
    _write(run.folder / RECORD, told)


def _write(path: Path, told: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(told, indent=2).encode())


def check_record(run: Run) -> None:
    """Whether a run, or a training that was broken off, is what the row is now.

    Raises:
        SweepError: If it was made from another config, weights or rule of checkpoints, or with another seed.
    """
    record = read_record(run)
    name, told = RECORD, record
    if record is None:
        name, told = TRAINING, _read_training(run) if run.trains else None
    if told is not None and run.is_trained and told.get("seed", run.seed) != run.seed:
        raise SweepError(
            f"{run.folder / name}: is of seed {told['seed']}: a copy of that run would count as another "
            "training; delete this folder"
        )
    if record is not None:
        made_from = (record["recipe"], record["checkpoint_rule"], record.get("weights"))
        is_other = made_from != (run.recipe, run.checkpoint, run.trained_by)
    else:
        is_other = told is not None and told["recipe"] != run.recipe
    if is_other:
        raise SweepError(
            f"{run.folder / name}: was made from another config, weights or rule of checkpoints than row "
            f"'{run.row}' has now; give another --out, or delete this folder"
        )


def out_of_date(run: Run, record: Mapping[str, Any]) -> str | None:
    """Why the scores of a run are not those of the checkpoint that the row of its weights has now.

    What a record does not tell, because an earlier version wrote it, is taken to fit.

    Returns:
        The reason; None if they are.

    Raises:
        SweepError: If the record of the other run is damaged.
    """
    if run.weights is None:
        return None
    if record.get(WEIGHTS_RECIPE, run.weights_recipe) != run.weights_recipe:
        return f"row '{run.trained_by}', whose checkpoint it judges, has another recipe now"
    now = judged_by_weights(run)
    if now is not None and record.get(CHECKPOINT_DIGEST) != now:
        return f"row '{run.trained_by}' has another checkpoint now than was judged"
    return None


def judged_by_weights(run: Run) -> str | None:
    """Checksum of the checkpoint with which the run of a run's weights was judged; None if nobody told."""
    other = None if run.weights is None else _read(run.weights / RECORD, ())
    return None if other is None else other.get(CHECKPOINT_DIGEST)


def date_of(run: Run, record: Mapping[str, Any]) -> str:
    """The day (UTC) on which a run was judged; that of the file of a record that does not say it."""
    if DATE in record:
        return str(record[DATE])
    return utc_day((run.folder / RECORD).stat().st_mtime)


def is_complete(run: Run, record: Mapping[str, Any] | None) -> bool:
    """Whether nothing is left to do of a run with this record."""
    if record is None or run.open_judgements or out_of_date(run, record):
        return False
    return run.weights is None or (run.weights / RECORD).exists()


def begin_training(run: Run) -> None:
    """Write down what a training is made from, before it starts or goes on.

    What an earlier try took counts up to its last checkpoint, where the training goes on.
    """
    seconds = 0.0
    if (told := _read_training(run)) is not None:
        seconds = told["seconds"]
        if told["started"] is not None:
            saved = (path.stat().st_mtime for path in run.work_dir.glob("*.pth"))
            seconds += max(0.0, max(saved, default=0.0) - told["started"])
    told = {"recipe": run.recipe, "seed": run.seed, "seconds": seconds, "started": time.time()}
    _write(run.folder / TRAINING, told)


def end_training(run: Run) -> float:
    """Write down that a training is done.

    Returns:
        Seconds that it took, over all tries.
    """
    told = _read_training(run)
    assert told is not None
    seconds: float = told["seconds"] + time.time() - told["started"]
    _write(run.folder / TRAINING, {**told, "seconds": seconds, "started": None})
    return seconds


def _read_training(run: Run) -> dict[str, Any] | None:
    return _read(run.folder / TRAINING, ("recipe", "seconds", "started"))


def judging_of(run: Run, checkpoint_digest: str | None) -> dict[str, Any]:
    """What tells the judgements of a run's checkpoint from those of another."""
    return {
        "recipe": run.recipe,
        CHECKPOINT_DIGEST: checkpoint_digest,
        WEIGHTS_RECIPE: run.weights_recipe,
    }


def seconds_of_judging(run: Run, judging: Mapping[str, Any]) -> dict[str, float] | None:
    """What a try that was killed between judgements took; None if it judged something else, or none did."""
    told = _read(run.folder / JUDGING, ("seconds",))
    if told is None or told != {**judging, "seconds": told["seconds"]}:
        return None
    return dict(told["seconds"])


def note_judging(run: Run, judging: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
    """Write down what is judged, and what the run took so far."""
    _write(run.folder / JUDGING, {**judging, "seconds": dict(seconds)})


def end_judging(run: Run) -> None:
    """All judgements are made, and the run is complete."""
    (run.folder / JUDGING).unlink(missing_ok=True)


def read_failure(run: Run) -> str | None:
    """Why the last try of a run failed; None if it did not."""
    path = run.folder / FAILURE
    return path.read_text(errors="replace").strip() if path.exists() else None


def note_failure(run: Run, reason: str) -> None:
    """Keep why a run failed, until it succeeds."""
    with suppress(OSError):  # (a disk that is full, for one, has told it already)
        write_atomically(run.folder / FAILURE, f"{reason}\n".encode())


def forget_failure(run: Run) -> None:
    """The run succeeded."""
    (run.folder / FAILURE).unlink(missing_ok=True)
