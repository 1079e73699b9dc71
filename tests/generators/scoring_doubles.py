"""A scorer for mining tests, and the mining of doubles as a script that tests can kill.

``python scoring_doubles.py OUT [--workers N] [--batch N] [--slow SECONDS] [--bad TOKEN ...]
[--hold TOKEN FILE]``.
Worker processes import this module, so it does not import torch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScores


@dataclass
class FakeScorer:
    """Off the road beyond 2 m, at 2 s; has no scores for the tokens in ``broken``.

    The scene that ``hold`` names waits for the file beside it.
    """

    seconds: float = 0.0
    broken: tuple[str, ...] = ()
    hold: tuple[str, str] | None = None

    def score(self, job: Sequence[ScenePlans]) -> list[SceneScores]:
        return [self.score_scene(scene) for scene in job]

    def score_scene(self, scene: ScenePlans) -> SceneScores:
        time.sleep(self.seconds)
        end = time.monotonic() + 300  # (by then whoever would make the file is gone)
        while self.hold and scene.token == self.hold[0] and time.monotonic() < end:
            if Path(self.hold[1]).exists():
                break
            time.sleep(0.02)
        if scene.token in self.broken:
            return SceneScores(scene.token, scene.log_name, None, f"RuntimeError: no route in {scene.token}")
        side = np.abs(scene.plans[:, -1, 1].astype(np.float64))
        values = np.ones((len(side), 7))
        values[:, 1] = side < 2.0
        values[:, 6] = values[:, 1] * (1.0 - 0.1 * side)
        times = np.where(values < 1.0, 2.0, np.inf)
        return SceneScores(scene.token, scene.log_name, values, times=times)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--bad", nargs="*", default=[])
    parser.add_argument("--hold", nargs=2)
    args = parser.parse_args()
    import mining_doubles
    import scoring_doubles  # not __main__, under whose name workers would look for the scorer

    summary = mining_doubles.run(
        args.out,
        scorer=scoring_doubles.FakeScorer(args.slow, tuple(args.bad), args.hold and tuple(args.hold)),
        num_workers=args.workers,
        batch_size=args.batch,
    )
    print(summary.resumed, summary.mined, sorted(summary.failures))
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
