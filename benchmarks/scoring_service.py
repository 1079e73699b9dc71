"""What scoring 64 plans of every scene of a batch costs a training step of LTF tiny.

``python benchmarks/scoring_service.py`` trains on random pictures, in blocks of steps that take turns: alone,
and with a scoring service that gets the plans at the start of each step and must have answered at its end. It
prints the median step of either and their ratio, and how long the steps have waited for scores. Metric caches
are those of the golden scenes of the tests, each a scene of its own. Run it on a machine that does nothing
else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.benchmarks.throughput import GOLDEN, SPLIT, fans, token_of, write_store
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.configs import load_config
from beyonddrive.evaluation.scene_scoring import SceneScorer
from beyonddrive.evaluation.service import ScoringService, ServiceSettings
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample

CONFIG = "ltf_tiny_1xb16-12e_synth"


def batches(scenes: int, batch: int) -> Iterator[dict[str, object]]:
    """Random batches for LTF tiny, whose tokens go through the scenes in turn."""
    random = torch.Generator().manual_seed(0)
    number = 0
    while True:
        samples = []
        for _ in range(batch):
            sample = PlanSample(metainfo={"token": token_of(number % scenes)})
            sample.gt = BaseDataElement(
                trajectory=torch.rand(8, 3, generator=random),
                agent_states=torch.rand(30, 5, generator=random),
                agent_labels=torch.rand(30, generator=random) > 0.5,
                bev_semantic_map=torch.randint(0, 7, (128, 256), generator=random),
            )
            samples.append(sample)
            number += 1
        camera = torch.randint(0, 256, (batch, 3, 64, 256), dtype=torch.uint8, generator=random)
        status = torch.rand(batch, 8, generator=random)
        yield {"inputs": {"camera": list(camera), "status": list(status)}, "data_samples": samples}


def main(argv: Sequence[str] | None = None) -> int:
    """Print medians, ratio and waiting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="scenes of a step")
    parser.add_argument("--plans", type=int, default=64, help="plans of a scene")
    parser.add_argument("--scenes", type=int, default=256, help="scenes of the store")
    parser.add_argument("--blocks", type=int, default=6, help="blocks of each kind")
    parser.add_argument("--steps", type=int, default=10, help="steps of a block")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training")
    parser.add_argument("--num-workers", type=int, default=1, help="processes that score")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    config = load_config(CONFIG)
    planner = MODELS.build(config.model).train()
    optimizer = torch.optim.AdamW(planner.parameters(), lr=1e-4)
    root = NavsimRoot(GOLDEN)
    scenes = list(root.scenes(SPLIT, SceneFilter()))
    plans = [fan.astype(np.float32) for fan in fans(scenes, args.plans)]
    source = batches(args.scenes, args.batch)
    took: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), scenes, root, args.scenes)
        scorer = SceneScorer(SPLIT, Path(folder))
        with ScoringService(scorer, ServiceSettings(args.num_workers)) as service:

            def step(is_scored: bool) -> float:
                data = next(source)
                samples = data["data_samples"]
                assert isinstance(samples, list)
                tokens = [sample.metainfo["token"] for sample in samples]
                chosen = np.stack([plans[int(token, 16) % len(scenes)] for token in tokens])
                start = time.perf_counter()
                future = service.submit(tokens, chosen) if is_scored else None
                ready = planner.data_preprocessor(data, training=True)
                losses = planner(**ready, mode="loss")
                optimizer.zero_grad()
                planner.parse_losses(losses)[0].backward()
                optimizer.step()
                if future is not None:
                    assert np.isfinite(future.result()).all()
                return time.perf_counter() - start

            for is_scored in (True, False):  # compiles kernels, reads the store, warms up the allocator
                for _ in range(-(-args.scenes // args.batch)):
                    step(is_scored)
            waited = service.counts.waited_seconds
            for block in range(2 * args.blocks):
                took[bool(block % 2)] += [step(bool(block % 2)) for _ in range(args.steps)]
            waited = service.counts.waited_seconds - waited

    alone, scored = (1e3 * float(np.median(took[kind])) for kind in (False, True))
    found = {
        "batch": args.batch,
        "plans": args.plans,
        "threads": args.threads,
        "workers": args.num_workers,
        "step_alone_ms": round(alone, 2),
        "step_with_scores_ms": round(scored, 2),
        "ratio": round(scored / alone, 3),
        "waited_ms_per_step": round(1e3 * waited / len(took[True]), 2),
    }
    if args.json:
        print(json.dumps(found))
        return 0
    for name, value in found.items():
        print(f"{name:<22}{value:>10}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
