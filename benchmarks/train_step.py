"""Speed and memory of training steps: ``python benchmarks/train_step.py --device cpu|cuda [PLANNER ...]``.

Planners of the published size and a tiny one, with random weights and made-up scenes, train for a few
steps in each variant; the variants add up from left to right of ``plain, float32, tf32, bf16, channels_last,
fused_adamw, kept_memory, compile``:

* ``plain`` is what the same equations give without care: float32, eager, attention as written (softmax of a
  product), the latent of LTF encoded once for every scene though it is the same, torch's AdamW as it comes,
  every field of every sample copied to the device by itself;
* ``float32`` is this package as its recipes run it in full precision: fused attention, the latent encoded
  once, one copy per field;
* ``kept_memory`` has the process keep what a step frees, as ``beyonddrive train`` does;
* the others switch on one thing each, as the config does (docs/training_speed.md, "Faster steps").

A step is all that happens between a batch on the host and new weights: preparation, losses, backward,
clipping of gradients, optimizer. Printed are the median, samples per second, their ratio to ``plain`` of the
same batch and peak memory (CUDA: of the allocator; CPU: of the process, above that before the variant).

Before any time is taken the losses are compared: with dropout off, the first step must have the total loss of
``plain``, up to the rounding of the precision, or the variant has failed. On CUDA the steps run under
``torch.cuda.set_sync_debug_mode("error")``: one that makes the host wait for the GPU has failed, too. Waits
for events, which that mode does not see and boxes of agents cost, are counted and written with the figures.
What failed is named, the rest is measured, and the exit code is 1. With ``--time-limit`` what is not begun by
then is named as skipped: batches are taken in the order given, and compiled variants are last but for one of
the first batch.

On a busy machine ``--cpu-time --threads 1`` counts processor time instead of the clock.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import beyonddrive
from beyonddrive.benchmarks.dropout import switch_off_dropout
from beyonddrive.benchmarks.waits import Waits, refused
from beyonddrive.engine.allocator import keep_freed_memory
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.precision import bfloat16_autocast
from beyonddrive.engine.runner import load_config
from beyonddrive.heads.plan_prior import plan_priors
from beyonddrive.heads.plan_vocabulary import PlanVocabulary
from beyonddrive.plugins.base.planner import Planner
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample

MODEL_CONFIGS = Path(beyonddrive.__path__[0]) / "configs" / "_base_" / "models"
PLANNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ltf": ("ltf-delta_r34", {}),
    "ltf-beyonddrive": ("ltf-delta_r34", {"repulsion": {"weight": 5.0}}),
    "diffusiondrive": ("diffusiondrive_r34", {}),
    "meanfuser": ("meanfuser_r34", {}),
    "wote": ("wote_r34", {}),
    "ltf-tiny": ("ltf_tiny", {}),
}
"""Settings of a planner, of the published size unless it says tiny, and what its recipe adds."""
VARIANTS = (
    *("plain", "float32", "tf32", "bf16", "channels_last"),
    *("fused_adamw", "kept_memory", "compile"),
)
NOT_BY_DEFAULT = {"cpu": ("tf32", "compile"), "cuda": ("kept_memory",)}
"""Variants of a device that are measured where they are asked for."""
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
"""Relative difference of the loss that the rounding of a precision may make."""
NUM_NEGATIVES = 2
NUM_AGENTS = 2
"""In a scene; boxes of untrained planners match many in ways that cost the same but for rounding."""


@dataclass(frozen=True)
class Settings:
    """What is switched on."""

    plain: bool = False
    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False
    fused_adamw: bool = False
    kept_memory: bool = False

    @classmethod
    def of(cls, variants: Sequence[str], index: int) -> Settings:
        """Those of a variant: what it names, and all that those before it name."""
        on = set(variants[: index + 1])
        if variants[index] == "plain":
            return cls(plain=True)
        precision = next((name for name in ("bf16", "tf32") if name in on), "float32")
        switches = ("channels_last", "compile", "fused_adamw", "kept_memory")
        return cls(False, precision, *(name in on for name in switches))

    @classmethod
    def of_recipe(cls, config: Config) -> Settings:
        """Those of a recipe in full precision."""
        return cls(
            channels_last=bool(config.get("channels_last")),
            fused_adamw=bool(config.optim_wrapper.optimizer.get("fused")),
        )


@dataclass(frozen=True)
class Result:
    """Figures of a variant.

    Attributes:
        planner: Name.
        batch: Samples of a step.
        variant: Name.
        ms: Median of a step [ms].
        per_second: Samples.
        peak_mib: Peak memory [MiB].
        loss: Of the first step.
        grad_norm: Of the first step.
        waits: For events, of all steps that were timed.
    """

    planner: str
    batch: int
    variant: str
    ms: float
    per_second: float
    peak_mib: float
    loss: float
    grad_norm: float
    waits: int = 0


# ------------------------------------------------------------------ planners and batches
@cache
def build(name: str) -> Planner:
    """A planner with random weights from seed 0, and made-up anchors; the same one each time."""
    config, extra = PLANNERS[name]
    torch.manual_seed(0)
    planner: Planner = MODELS.build({**load_config(MODEL_CONFIGS / f"{config}.py").model, **extra})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for prior in plan_priors(planner):
            for buffer in prior.buffers():
                buffer.copy_(torch.rand(buffer.shape, generator=generator))
            prior.forget()
    return planner.train()


def batch_of(planner: Planner, size: int) -> dict[str, Any]:
    """Made-up scenes as a data loader gives them; the second half has no negatives."""
    generator = torch.Generator().manual_seed(size)
    backbone: Any = planner.backbone
    vocabularies = [prior for prior in plan_priors(planner) if isinstance(prior, PlanVocabulary)]
    shapes = {"lidar": (backbone.lidar_channels, *backbone.bev_size)}
    inputs: dict[str, list[torch.Tensor]] = {
        "status": [torch.rand(8, generator=generator) for _ in range(size)],
        "camera": [
            torch.randint(0, 256, (3, *backbone.image_size), generator=generator, dtype=torch.uint8)
            for _ in range(size)
        ],
    }
    for key in set(planner.required_inputs) - set(inputs):
        inputs[key] = [torch.rand(shapes[key], generator=generator) for _ in range(size)]
    samples = []
    for row in range(size):
        sample = PlanSample(metainfo={"token": f"scene{row}", "log_name": "log"})
        maps = torch.randint(0, 7, (2, 128, 256), generator=generator)
        sample.gt = BaseDataElement(
            trajectory=torch.randn(8, 3, generator=generator).cumsum(0),
            agent_states=torch.randn(30, 5, generator=generator),
            agent_labels=torch.arange(30) < NUM_AGENTS,
            bev_semantic_map=maps[0],
            future_bev_semantic_map=maps[1],
        )
        for vocabulary in vocabularies:
            scores = torch.rand(vocabulary.size, 6, generator=generator)
            sample.gt.set_field(scores, "vocabulary_scores")
            sample.gt.set_field(torch.tensor(vocabulary.identity), "vocabulary_id")
        sample.negatives = BaseDataElement(
            plans=torch.randn(NUM_NEGATIVES, 8, 3, generator=generator),
            valid=torch.tensor([row < max(size // 2, 1)] * NUM_NEGATIVES),
            scores=torch.zeros(NUM_NEGATIVES, 7),
        )
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


# ------------------------------------------------------------------ steps
class Step:
    """A planner with its optimizer, and one training step of it."""

    def __init__(self, planner: Planner, settings: Settings, device: torch.device) -> None:
        self.planner, self.settings, self.device = planner.to(device), settings, device
        if settings.plain:
            _encode_latent_by_scene(planner)
        if settings.channels_last:
            self.planner.to(memory_format=torch.channels_last)
        if settings.compiled:
            self.planner.backbone.compile()
        self.parameters = [p for p in planner.parameters() if p.requires_grad]
        fused = {"fused": True} if settings.fused_adamw else {}
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.0, **fused)

    def __call__(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Total loss and norm of the gradients, on the device."""
        if self.settings.plain:
            batch = self._one_by_one(batch)
        with self._precision():
            data = self.planner.data_preprocessor(batch, True)
            total, _ = self.planner.parse_losses(self.planner(**data, mode="loss"))
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 50.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total.detach(), norm.detach()

    def _one_by_one(self, batch: dict[str, Any]) -> dict[str, Any]:
        inputs = {key: torch.stack(values) for key, values in batch["inputs"].items()}
        return {
            "inputs": inputs,
            "data_samples": [sample.to(self.device) for sample in batch["data_samples"]],
        }

    @contextmanager
    def _precision(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.settings.plain:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self.settings.precision == "bf16":
                stack.enter_context(bfloat16_autocast(self.device.type))
            yield


def _encode_latent_by_scene(planner: Planner) -> None:
    """Have a latent planner lead its latent through the stem once for every scene, as its equations read."""
    backbone: Any = planner.backbone
    if not backbone.latent:
        return
    forward = backbone.forward

    def by_scene(camera: torch.Tensor, lidar: Any = None) -> Any:
        backbone._bev_input = lambda lidar: backbone.lidar_latent.expand(len(camera), -1, -1, -1)
        return forward(camera, lidar)

    backbone.forward = by_scene


def measure(name: str, batch: int, variant: str, settings: Settings, args: argparse.Namespace) -> Result:
    """Compare the first loss, then time steps."""
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = settings.precision != "float32"
    torch.backends.cudnn.allow_tf32 = settings.precision != "float32"
    if settings.kept_memory:
        keep_freed_memory()
    if settings.compiled:  # (what was compiled before makes sizes dynamic, and counts against a limit)
        torch.compiler.reset()
    gc.collect()
    before = _reset_peak(device)
    data = batch_of(build(name), batch)
    planner = copy.deepcopy(build(name))
    switch_off_dropout(planner)
    first = Step(planner, settings, device)
    torch.manual_seed(0)
    loss, norm = (float(value) for value in first(copy.copy(data)))
    del first, planner
    step = Step(copy.deepcopy(build(name)), settings, device)
    clock = time.process_time if args.cpu_time else time.perf_counter
    times = []
    waits = Waits()
    _reset_peak(device)
    for number in range(args.warm_up + args.steps):
        start = clock()
        # (in their first steps libraries are started, and tables move to the device)
        watch = device.type == "cuda" and number >= args.warm_up and not settings.plain
        with refused(waits) if watch else nullcontext():
            step(copy.copy(data))
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= args.warm_up:
            times.append(clock() - start)
    middle = median(times)
    peak = (_peak(device) - before) / 2**20
    return Result(name, batch, variant, 1e3 * middle, batch / middle, peak, loss, norm, waits.count)


class Processes:
    """Runs :func:`measure` in other processes.

    On a CPU in one each, for no variant should have the memory or the caches of another; on a GPU, whose
    memory is counted by the allocator, in one for all.
    """

    def __init__(self, one_for_all: bool) -> None:
        self.one_for_all = one_for_all
        self._pool: ProcessPoolExecutor | None = None

    def measure(self, *arguments: Any) -> Result:
        """What :func:`measure` returns, or raises; a process that dies raises ``BrokenProcessPool``."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            return self._pool.submit(measure, *arguments).result()
        except BaseException:
            self.close()  # what failed may have left its memory behind
            raise
        finally:
            if not self.one_for_all:
                self.close()

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _reset_peak(device: torch.device) -> int:
    """Bytes in use now, from where the peak counts."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return 0
    Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def check_equal(result: Result, plain: Result, settings: Settings) -> None:
    """Refuse a variant whose first loss is not that of the plain run.

    Raises:
        ValueError: With both.
    """
    allowed = TOLERANCE[settings.precision]
    if not abs(result.loss - plain.loss) <= allowed * abs(plain.loss):
        raise ValueError(
            f"{result.planner}, batch {result.batch}, {result.variant}: the loss of the first step is "
            f"{result.loss:.6g}, that of plain is {plain.loss:.6g}; they may differ by {allowed:g} of it"
        )


# ------------------------------------------------------------------ command line
def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Speed and memory of training steps.")
    parser.add_argument("planners", nargs="*", help=f"of {', '.join(PLANNERS)}; default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        help=f"default: all, on a CPU without {' and '.join(NOT_BY_DEFAULT['cpu'])}, "
        f"on a GPU without {' and '.join(NOT_BY_DEFAULT['cuda'])}",
    )
    parser.add_argument("--steps", type=int, default=5, help="steps that count")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time-limit", type=float, metavar="S", help="begin nothing after so many seconds")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time of this process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    args = parser.parse_args(argv)
    if unknown := set(args.planners) - set(PLANNERS):
        parser.error(f"no planner {', '.join(sorted(unknown))}: choose from {', '.join(PLANNERS)}")
    if args.variants is None:
        args.variants = [v for v in VARIANTS if v not in NOT_BY_DEFAULT[args.device]]
    if args.device == "cpu" and "tf32" in args.variants:
        parser.error("--variants tf32: only GPUs have it")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no GPU that torch can use")
    args.variants = ["plain", *(v for v in VARIANTS[1:] if v in args.variants)]
    return args


def plan(args: argparse.Namespace) -> list[tuple[str, int, str]]:
    """Planner, batch and variant of each measurement, in order.

    What is compiled takes long and is last, but for the first planner with the first batch, so that each
    variant is measured before time runs out.
    """
    names = args.planners or list(PLANNERS)
    early, late = [], []
    for batch in args.batch:
        for name in names:
            for variant in args.variants:
                (late if variant == "compile" else early).append((name, batch, variant))
    of_first_batch = sum(batch == args.batch[0] for _, batch, _ in early)
    return [*early[:of_first_batch], *late[:1], *early[of_first_batch:], *late[1:]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 1 if a variant has failed."""
    args = parse_args(argv)
    say = partial(print, flush=True)
    started = time.monotonic()
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} threads"
    kind = "processor time" if args.cpu_time else "time"
    say(f"{where}, torch {torch.__version__}, {kind} of a step, median of {args.steps}")
    say(
        f"{'planner':<16}{'batch':>6} {'variant':<14}{'ms':>9}"
        f"{'samples/s':>11}{'ratio':>7}{'peak MiB':>10}  loss"
    )
    plains: dict[tuple[str, int], Result] = {}
    rows: list[dict[str, Any]] = []
    processes = Processes(one_for_all=args.device == "cuda")
    for name, batch, variant in plan(args):
        row: dict[str, Any] = {"planner": name, "batch": batch, "variant": variant}
        line = f"{name:<16}{batch:>6} {variant:<14}"
        if args.time_limit is not None and time.monotonic() - started > args.time_limit:
            row["skipped"] = f"not begun within {args.time_limit:g} s"
        elif variant != "plain" and (name, batch) not in plains:
            row["skipped"] = "its plain restatement has failed, or was skipped"
        else:
            settings = Settings.of(args.variants, args.variants.index(variant))
            try:
                result = processes.measure(name, batch, variant, settings, args)
                plain = plains.setdefault((name, batch), result)
                check_equal(result, plain, settings)
                row |= {**asdict(result), "ratio": plain.ms / result.ms}
                line += f"{result.ms:>9.1f}{result.per_second:>11.2f}{row['ratio']:>7.2f}"
                line += f"{result.peak_mib:>10.0f}  {result.loss:.5f}"
            # A variant may fail in any way (memory, a compiler, a wait), and the others are measured.
            except Exception as error:
                row["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        say(line + "".join(f"{key}: {row[key]}" for key in ("skipped", "failed") if key in row))
        rows.append(row)
        if args.json is not None:
            figures = {"device": where, "torch": torch.__version__, "kind": kind, "steps": rows}
            write_atomically(args.json, json.dumps(figures, indent=2).encode())
    processes.close()
    return int(any("failed" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
