"""What a pool would hold, by sampling setting: ``python results/effect/coverage.py GENERATOR --world WORLD``.

``GENERATOR`` is a checkpoint of ``flow_policy_tiny_1xb16-12e_synth``. From every setting proposals are drawn
for the same scenes of the training split, each n-th of them, and scored as ``beyonddrive mine`` scores;
nothing of them is kept. ``coverage.csv`` gets a row per setting: proposals, scenes with a negative and
proposals that are one [%], scenes in which a sub-score fails [%], distance of the nearest negative and of all
proposals from the expert [m], and the mean pairwise distance of proposals and of negatives [m].
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from numpy.typing import NDArray
from tqdm import tqdm

from beyonddrive.apis import init_planner, load_config
from beyonddrive.datasets.stores.negative_pool import NegativeRecord
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.text_tables import csv_text
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer, ScoreSettings
from beyonddrive.evaluation.score_stream import cut
from beyonddrive.generators.coverage import CoverageCounter, CoverageReport
from beyonddrive.generators.mining_job import mining_dataset
from beyonddrive.generators.mining_source import DatasetSource
from beyonddrive.generators.strategies import Strategy, build_strategy
from beyonddrive.registry import DATASETS

OUT = Path(__file__).parent / "coverage.csv"
CONFIG = "flow_policy_tiny_1xb16-12e_synth"
DIVERSE = "beyonddrive::_base_/negatives/diverse.py"
BATCH = 16
SEED = 0
FAILING = ("NC", "DAC", "TTC", "DDC", "EP", "C")
"""Sub-scores of the table."""


def strategies() -> dict[str, tuple[Strategy, tuple[int, ...]]]:
    """Sampling strategies by name, and how many of their proposals make a row.

    A row of fewer than all has the first ones: proposals are drawn independently of each other.
    """
    published = {"guidance": 0.5, "noise": 0.4}
    found: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {}
    for guidance in (0.0, 0.5, 1.0):
        for noise in (0.2, 0.4, 0.8):
            own = {"guidance": guidance, "noise": noise}
            most = (16, 64, 256) if own == published else (64,)
            found[f"guidance {guidance}, noise {noise}"] = {**own, "num_proposals": most[-1]}, most
    near, far = {"guidance": 1.0, "noise": 0.2}, {"guidance": 0.0, "noise": 0.6}
    parts = [{**near, "num_proposals": 16}, {**published, "num_proposals": 32}, {**far, "num_proposals": 16}]
    found["mixture"] = {"type": "MixtureSampling", "parts": parts}, (64,)
    found["farthest of 256"] = (
        {
            "type": "FarthestPointSampling",
            "base": {**published, "num_proposals": 256},
        },
        (64,),
    )
    diverse = load_config(DIVERSE).negative_mining.strategy.to_dict()
    found["farthest of a mixture of 256"] = {k: v for k, v in diverse.items() if k != "_delete_"}, (64,)
    return {name: (build_strategy(config), most) for name, (config, most) in found.items()}


def measure(
    source: DatasetSource,
    draw: Callable[[list[dict[str, Any]], list[str]], Mapping[str, NDArray[np.float32]]],
    scorer: SceneScorer,
    counts: Mapping[str, tuple[int, ...]],
) -> dict[str, CoverageReport]:
    """Coverage of every row over the scenes of a source.

    Args:
        source: The scenes.
        draw: From packed samples and their tokens to plans (B, n, 8, 3) by strategy.
        scorer: Scores the plans of a scene, those of all strategies at once.
        counts: How many proposals make a row, by strategy.

    Raises:
        SystemExit: If a scene cannot be read or scored; names it.
    """
    counters = {row: CoverageCounter() for row, _, _ in _rows(counts)}
    with tqdm(total=len(source.tokens), unit="scene", desc="coverage", dynamic_ncols=True) as bar:
        for batch in cut(range(len(source.tokens)), BATCH):
            scenes = [source[index] for index in batch]
            if lost := [scene for scene in scenes if scene.sample is None]:
                raise SystemExit(f"coverage: {lost[0].token}: {lost[0].reason}")
            plans = draw([s.sample for s in scenes if s.sample is not None], [s.token for s in scenes])
            for place, scene in enumerate(scenes):
                assert scene.sample is not None
                expert = scene.sample["data_samples"].gt.trajectory.numpy().astype(np.float32)
                drawn = {name: values[place] for name, values in plans.items()}
                given = ScenePlans(scene.token, scene.log_name, np.concatenate(list(drawn.values())))
                (scored,) = scorer.score([given])
                if scored.values is None or scored.times is None:
                    raise SystemExit(f"coverage: {scene.token}: {scored.reason}")
                ends = np.cumsum([len(values) for values in drawn.values()])[:-1]
                scores, times = (
                    dict(zip(drawn, np.split(values.astype(np.float32), ends), strict=True))
                    for values in (scored.values, scored.times)
                )
                for row, name, most in _rows(counts):
                    plans_of, scores_of, times_of = (part[name][:most] for part in (drawn, scores, times))
                    counters[row].add(NegativeRecord(plans_of, scores_of, expert, times_of))
                bar.update()
    return {row: counter.report() for row, counter in counters.items()}


def _rows(counts: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, str, int]]:
    """Row, strategy and number of proposals; rows that need it say how many."""
    for name, numbers in counts.items():
        for most in numbers:
            yield (name if most == 64 else f"{name}, {most} proposals"), name, most


def cells(report: CoverageReport) -> dict[str, str]:
    """Figures of a row as the table has them."""

    def percent(share: float | None) -> str:
        return "" if share is None else f"{100.0 * share:.1f}"

    def metres(distance: float | None) -> str:
        return "" if distance is None else f"{distance:.2f}"

    return {
        "proposals": str(report.num_proposals // report.num_scenes),
        "scenes": str(report.num_scenes),
        "with a negative": percent(report.scenes_with_negative),
        "negatives": percent(report.proposals_negative),
        **{f"{name} fails": percent(report.scenes_failing[name]) for name in FAILING},
        "nearest": metres(report.nearest_negative_mean),
        "nearest, median": metres(report.nearest_negative_median),
        "all": metres(report.expert_distance_mean),
        "diversity": metres(report.proposal_diversity),
        "diversity of negatives": metres(report.negative_diversity),
    }


def table(reports: Mapping[str, CoverageReport]) -> str:
    """The rows as csv text."""
    return csv_text([{"row": row, **cells(report)} for row, report in reports.items()])


def main() -> None:
    """Measure, and write ``coverage.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("generator", type=Path, metavar="GENERATOR")
    parser.add_argument("--world", type=Path, required=True, help="root of the generated world")
    parser.add_argument("--scenes", type=int, default=500, help="how many, spread over the split")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(CONFIG, {"data_root": str(args.world)})
    planner = init_planner(config, args.generator)
    data = mining_dataset(config)
    source = DatasetSource(DATASETS.build(data))
    there, wanted = len(source.tokens), min(args.scenes, len(source.tokens))
    indices = [number * there // wanted for number in range(wanted)]
    source = DatasetSource(DATASETS.build({**data, "indices": indices}))
    chosen = strategies()

    def draw(samples: list[dict[str, Any]], tokens: list[str]) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            batch = planner.data_preprocessor(pseudo_collate(samples), False)
            return {
                name: strategy(planner, batch["inputs"], tokens, SEED).float().numpy()
                for name, (strategy, _) in chosen.items()
            }

    settings = ScoreSettings(with_times=True)
    scorer = SceneScorer(data["split"], data_root=args.world, settings=settings)
    reports = measure(source, draw, scorer, {name: most for name, (_, most) in chosen.items()})
    text = table(reports)
    write_atomically(OUT, text.encode())
    print(text)


if __name__ == "__main__":
    main()
