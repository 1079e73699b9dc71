"""One short training, watched: ``[torchrun] -m beyonddrive.benchmarks.on_gpu.train_one RECIPE OPTIONS``.

It is a ``beyonddrive train`` whose losses are kept, without dropout (whose draws differ between devices) and
with steps in which the host must not wait for the GPU: from the third on they run under
``torch.cuda.set_sync_debug_mode("error")``, and waits for events, which it does not see, are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from beyonddrive.benchmarks.dropout import switch_off_dropout
from beyonddrive.benchmarks.waits import Waits, refused
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.runner import build_train_runner, ending_processes, load_config
from beyonddrive.registry import HOOKS
from beyonddrive.tools._command_line import add_config_options

WARM_UP = 2
"""Steps that may wait: libraries are started, tables move to the device."""


@HOOKS.register_module()
class WatchedStepsHook(Hook):
    """Keeps the losses of the steps, and ends the process in the middle of a training if asked to.

    A step in which the host waits for a GPU is an error.

    Args:
        losses: JSON file for the losses by step, the scale of a gradient scaler, and what they were made on.
        kill_after: Step after which the process is killed, as a cluster does.
    """

    priority = "VERY_LOW"

    def __init__(self, losses: str, kill_after: int | None = None) -> None:
        self.losses, self.kill_after = Path(losses), kill_after
        self._totals: dict[int, torch.Tensor] = {}
        self._done = 0
        self._waits = Waits()

    def before_train(self, runner: Runner) -> None:
        """Put the watch around the steps."""
        planner = runner.model.module if is_model_wrapper(runner.model) else runner.model
        switch_off_dropout(planner)
        step = runner.model.train_step

        def watched(*args: Any, **kwargs: Any) -> Any:
            watch = torch.cuda.is_available() and self._done >= WARM_UP
            self._done += 1
            with refused(self._waits) if watch else nullcontext():
                return step(*args, **kwargs)

        runner.model.train_step = watched

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keep the loss, on the device."""
        self._totals[runner.iter + 1] = outputs["loss"].detach()
        if runner.iter + 1 == self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train(self, runner: Runner) -> None:
        """Write what was seen."""
        scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
        backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else None
        device = next(runner.model.parameters()).device
        seen = {
            "losses": {step: float(loss) for step, loss in self._totals.items()},
            "scale": None if scaler is None else scaler.get_scale(),
            "backend": backend,
            "device": device.type,
            "watched": max(0, self._done - WARM_UP) if device.type == "cuda" else 0,
            "waits": self._waits.count,
        }
        write_atomically(self.losses, json.dumps(seen).encode())


def main(argv: Sequence[str] | None = None) -> int:
    """Train."""
    parser = argparse.ArgumentParser(description="One short training, watched.")
    parser.add_argument("recipe")
    parser.add_argument("--losses", required=True)
    parser.add_argument("--work-dir", required=True)
    parser.add_argument("--kill-after", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--amp", action="store_true")
    add_config_options(parser)
    args = parser.parse_args(argv)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config = load_config(args.recipe, args.cfg_options)
    watch = {"losses": args.losses, "kill_after": args.kill_after}
    # (the machine may lack tensorboard)
    config.visualizer.vis_backends = [{"type": "LocalVisBackend"}]
    config.custom_hooks = [*config.custom_hooks, {"type": "WatchedStepsHook", **watch}]
    with ending_processes():
        launcher = "pytorch" if "RANK" in os.environ else "none"
        build_train_runner(config, args.work_dir, args.resume, args.amp, launcher).train()
    return 0


if __name__ == "__main__":
    sys.exit(main())
