"""One short training, watched: ``[torchrun] -m beyonddrive.benchmarks.on_gpu.train_one RECIPE OPTIONS``.

It is a ``beyonddrive train`` whose losses are kept, without dropout (whose draws differ between devices) and
with steps in which the host must not wait for the GPU: from the third on they run under
``torch.cuda.set_sync_debug_mode("error")``, and waits for events, which it does not see, are counted. Between
two of these steps, where hooks and the loader work, waits are counted, too. Which of the settings of faster
steps were at work is seen, and not taken from the config.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from beyonddrive.benchmarks.dropout import switch_off_dropout
from beyonddrive.benchmarks.waits import Waits, noticed, refused
from beyonddrive.engine.activation_checkpointing import is_checkpointed
from beyonddrive.engine.compilation import is_compiled
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.resuming import single_wrappers
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
        losses: JSON file for the losses by step, the scale of a gradient scaler, what they were made on, and
            the settings that were at work.
        kill_after: Step after which the process is killed, as a cluster does.
    """

    priority = "VERY_LOW"

    def __init__(self, losses: str, kill_after: int | None = None) -> None:
        self.losses, self.kill_after = Path(losses), kill_after
        self._totals: dict[int, torch.Tensor] = {}
        self._done = 0
        self._waits = Waits()
        self._between = ExitStack()
        self._gap: Waits | None = None
        self._gaps: list[int] = []
        self._autocast: str | None = None

    def before_train(self, runner: Runner) -> None:
        """Put the watch around the steps."""
        planner = runner.model.module if is_model_wrapper(runner.model) else runner.model
        switch_off_dropout(planner)
        planner.register_forward_pre_hook(self._see_precision)
        step = runner.model.train_step

        def watched(*args: Any, **kwargs: Any) -> Any:
            watch = torch.cuda.is_available() and self._done >= WARM_UP
            self._done += 1
            self._end_gap()
            with refused(self._waits) if watch else nullcontext():
                outputs = step(*args, **kwargs)
            if watch:
                self._gap = Waits()
                self._between.enter_context(noticed(self._gap))
            return outputs

        runner.model.train_step = watched

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keep the loss, on the device; what follows the last step of an epoch may wait."""
        if self.end_of_epoch(runner.train_dataloader, batch_idx):
            self._end_gap(is_counted=False)
        self._totals[runner.iter + 1] = outputs["loss"].detach()
        if runner.iter + 1 == self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def _end_gap(self, is_counted: bool = True) -> None:
        """End the watch over what lies between two steps, if there is one."""
        self._between.close()
        if self._gap is not None and is_counted:
            self._gaps.append(self._gap.count)
        self._gap = None

    def _see_precision(self, planner: nn.Module, inputs: Any) -> None:
        device = next(planner.parameters()).device.type
        if torch.is_autocast_enabled(device):
            self._autocast = str(torch.get_autocast_dtype(device)).removeprefix("torch.")

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
            "waits_between": self._gaps,
            "settings": {"autocast": self._autocast, **settings_of(runner)},
        }
        write_atomically(self.losses, json.dumps(seen).encode())


def settings_of(runner: Runner) -> dict[str, Any]:
    """Which settings of faster steps have been at work in a training that has ended.

    Returns:
        ``tf32``, ``channels_last`` and ``fused``; ``averaged``, whether there are averaged weights that are
        not the trained ones; ``updates`` of the weights; ``max_norm`` of the gradients, None if they are not
        clipped; ``checkpointed`` and ``compiled``, names of parts.
    """
    planner = runner.model.module if is_model_wrapper(runner.model) else runner.model
    wrapper = single_wrappers(runner.optim_wrapper)[0]
    steps = [state["step"] for state in wrapper.optimizer.state.values() if "step" in state]
    kernels = [p for p in planner.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
    return {
        "tf32": torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32,
        "channels_last": bool(kernels)
        and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels),
        "fused": bool(wrapper.optimizer.param_groups[0].get("fused")),
        "averaged": any(
            not torch.equal(ours, theirs)
            for average in averages
            for ours, theirs in zip(average.parameters(), planner.parameters(), strict=True)
        ),
        "updates": max((int(step) for step in steps), default=0),
        "max_norm": getattr(wrapper, "clip_grad_kwargs", {}).get("max_norm"),
        "checkpointed": [name for name, part in planner.named_modules() if is_checkpointed(part)],
        "compiled": [name for name, part in planner.named_modules() if is_compiled(part)],
    }


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
    config = load_config(args.recipe, args.cfg_options)
    config.tf32 = bool(config.get("tf32"))  # (what torch does by itself is TF32 in convolutions)
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
