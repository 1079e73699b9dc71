"""What scoring 64 plans of every scene of a batch costs a training step of LTF tiny.

``python benchmarks/scoring_service.py`` trains by its recipe on random pictures, in blocks of steps that take
turns: alone; with a scoring service that gets the plans at the start of each step and must have answered at
its end; and with one that gets them likewise and must have answered by the start of the next step
(``NextStepScores``). It prints the median step of each, what the latter two are times the first, and how long
their steps have waited for scores. Ratios are of blocks that follow each other: their median over the rounds,
and its quartiles, so that a machine that becomes slower for a while changes them little. Metric caches are
those of the golden scenes of the tests, each a scene of its own. Threads that wait sleep, as those of
``beyonddrive train`` do; ``OMP_WAIT_POLICY=ACTIVE`` in the environment has them spin. Run it on a machine
that does nothing else.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # (read once, when torch is loaded)

import numpy as np
import torch

from beyonddrive.benchmarks import train_step
from beyonddrive.benchmarks.throughput import GOLDEN, SPLIT, fans, token_of, write_store
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.configs import load_config
from beyonddrive.evaluation.scene_scoring import SceneScorer
from beyonddrive.evaluation.service import NextStepScores, ScoringService, ServiceSettings
from beyonddrive.plugins.base.planner import Planner
from beyonddrive.registry import MODELS

CONFIG = "ltf_tiny_1xb16-12e_synth"
ALONE, WITHIN, LATER = KINDS = ("alone", "within_step", "next_step")
"""Steps without scores, with scores by their end, and with those of the step before."""


def batches(planner: Planner, scenes: int, batch: int) -> Iterator[dict[str, Any]]:
    """A made-up batch again and again, whose tokens go through the scenes in turn."""
    data = train_step.batch_of(planner, batch)
    number = 0
    while True:
        for sample in data["data_samples"]:
            sample.set_metainfo({"token": token_of(number % scenes)})
            number += 1
        yield copy.copy(data)


def main(argv: Sequence[str] | None = None) -> int:
    """Print medians, ratios and waiting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="scenes of a step")
    parser.add_argument("--plans", type=int, default=64, help="plans of a scene")
    parser.add_argument("--scenes", type=int, default=256, help="scenes of the store")
    parser.add_argument("--blocks", type=int, default=6, help="blocks of each kind")
    parser.add_argument("--steps", type=int, default=10, help="steps of a block, after one to start")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training")
    parser.add_argument("--num-workers", type=int, default=1, help="processes that score")
    parser.add_argument("--niceness", type=int, default=ServiceSettings.niceness, help="of these processes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    config = load_config(CONFIG)
    planner = MODELS.build(config.model).train()
    train = train_step.Step(planner, train_step.Settings.of_recipe(config), torch.device("cpu"))
    root = NavsimRoot(GOLDEN)
    scenes = list(root.scenes(SPLIT, SceneFilter()))
    plans = [fan.astype(np.float32) for fan in fans(scenes, args.plans)]
    source = batches(planner, args.scenes, args.batch)
    took: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    waited = dict.fromkeys(KINDS, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), scenes, root, args.scenes)
        scorer = SceneScorer(SPLIT, Path(folder))
        with ScoringService(scorer, ServiceSettings(args.num_workers, niceness=args.niceness)) as service:
            later: NextStepScores[None] = NextStepScores(service)

            def step(kind: str) -> float:
                data = next(source)
                tokens = [sample.metainfo["token"] for sample in data["data_samples"]]
                chosen = np.stack([plans[int(token, 16) % len(scenes)] for token in tokens])
                start = time.perf_counter()
                future = service.submit(tokens, chosen) if kind == WITHIN else None
                before = later.exchange(tokens, chosen, None) if kind == LATER else None
                train(data)
                scores = future.result() if future is not None else before and before.scores
                assert scores is None or np.isfinite(scores).all()
                return time.perf_counter() - start

            def block(kind: str, steps: int) -> None:
                step(kind)  # of scores one step later the first waits for none
                waited_before = service.counts.waited_seconds
                took[kind].append([step(kind) for _ in range(steps)])
                waited[kind] += service.counts.waited_seconds - waited_before
                later.clear()  # nothing is scored in the steps of another kind

            # Compiles kernels, reads the store, warms up the allocator.
            for kind in (WITHIN, LATER, ALONE):
                for _ in range(-(-args.scenes // args.batch)):
                    step(kind)
                later.clear()
            for first in range(args.blocks):
                for turn in range(len(KINDS)):
                    block(KINDS[(first + turn) % len(KINDS)], args.steps)

    blocks = {kind: np.median(took[kind], axis=1) for kind in KINDS}
    ratios = {kind: np.quantile(blocks[kind] / blocks[ALONE], [0.5, 0.25, 0.75]) for kind in (WITHIN, LATER)}
    found: dict[str, Any] = {
        "batch": args.batch,
        "plans": args.plans,
        "threads": args.threads,
        "workers": args.num_workers,
        "niceness": args.niceness,
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        **{f"{kind}_ms": round(1e3 * float(np.median(took[kind])), 2) for kind in KINDS},
        **{f"{kind}_ratio": round(middle, 3) for kind, (middle, _, _) in ratios.items()},
        **{f"{kind}_quartiles": f"{low:.3f} {high:.3f}" for kind, (_, low, high) in ratios.items()},
        **{f"{kind}_waited_ms": round(1e3 * waited[kind] / np.size(took[kind]), 2) for kind in ratios},
    }
    if args.json:
        print(json.dumps(found))
        return 0
    for name, value in found.items():
        print(f"{name:<22}{value:>12}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
