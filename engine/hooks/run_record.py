"""The hook that writes down what a training was made with, beside its log."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from beyonddrive.engine.environment import environment, git_state
from beyonddrive.engine.files import remove_leftovers, write_atomically
from beyonddrive.engine.wrapped_datasets import fingerprints
from beyonddrive.registry import HOOKS
from beyonddrive.structures.digests import sha256_of

RECORD = "run.json"
"""Name of the file, in the folder of the log; the config lies in ``vis_data`` there."""


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Writes ``run.json`` into the folder of each start's log: a resumed training has one for each start.

    It holds versions and machine (:func:`~beyonddrive.engine.environment.environment`), ``git`` (commit of
    the checkout and whether files differ from it; null for an installed package), ``command``, ``seed``,
    ``processes``, ``first_step``, ``load_from`` (file and checksum of the weights it began with; null for
    fresh ones), ``data`` and ``validation``: for each data set of the training and of its validation the
    split, the number of its scenes, a digest of what they were read from, and what tells the stores from
    others that its transforms read, such as the pool of negatives.

    Raises:
        StoreError: When the training starts: if such a store is not there, or does not fit.
    """

    priority = "VERY_LOW"

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Write it."""
        facts = {
            **environment(),
            "git": git_state(),
            "command": sys.argv,
            "seed": runner.seed,
            "processes": get_world_size(),
            "first_step": runner.iter + 1,
            "load_from": _first_weights(runner),
            "data": fingerprints(runner.train_dataloader.dataset),
            "validation": [] if runner.val_loop is None else fingerprints(runner.val_dataloader.dataset),
        }
        for start in Path(runner.work_dir).iterdir():  # one that was killed may have left a part of it
            if start.is_dir():
                remove_leftovers(start)
        write_atomically(Path(runner.log_dir) / RECORD, (json.dumps(facts, indent=1) + "\n").encode())


def _first_weights(runner: Runner) -> dict[str, str] | None:
    """The weights that a training begins with; None for fresh ones, or if it goes on from its checkpoint."""
    start = getattr(runner, "_load_from", None)
    if start is None or getattr(runner, "is_resumed", False):
        return None
    path = Path(start)
    return {"file": path.name, "sha256": sha256_of(path) if path.is_file() else ""}
