"""How much repulsion can gain, by how precise the planner is: a toy that trains in seconds.

``python benchmarks/repulsion_toy.py`` takes three minutes on one core. A scene is a corridor that reaches 0.2
to 3 m to either side of the expert. The planner knows both widths up to noise, and chooses a sideways offset;
what it cannot know moves the expert by a normal error of the given standard deviation. A plan outside of the
corridor fails. 64 proposals around the expert give the negatives. Losses and selections are those of
``configs/_base_/negatives``. docs/negatives.md holds a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from beyonddrive.losses.repulsive import Negatives, RepulsiveDistanceLoss
from beyonddrive.registry import SELECTORS

PIECES = Path(__file__).parents[1] / "configs/_base_/negatives"
ERRORS = (0.4, 1.0, 2.0)
ATTRACTION = 10.0
NUM_TRAIN, NUM_TEST, NUM_STEPS, BATCH = 4000, 40000, 1500, 128
SPREAD = 1.5
"""Standard deviation of the proposals around the expert [m]."""
SPEED = 4.0


class Cases(NamedTuple):
    """Scenes: room to the left and right of the expert, its offset, and what the planner sees."""

    left: Tensor
    right: Tensor
    expert: Tensor
    seen: Tensor


def make_cases(count: int, error: float, seed: int) -> Cases:
    """Draw scenes."""
    source = torch.Generator().manual_seed(seed)
    left, right = 0.2 + 2.8 * torch.rand(2, count, generator=source)
    expert = error * torch.randn(count, generator=source)
    seen = torch.stack([left, right], dim=1) + 0.5 * torch.randn(count, 2, generator=source)
    return Cases(left, right, expert, seen)


def plans_of(offsets: Tensor) -> Tensor:
    """Straight plans (..., 8, 3) whose last pose is so far to the left."""
    plans = torch.zeros(*offsets.shape, 8, 3)
    steps = torch.arange(1.0, 9.0)
    plans[..., 0] = SPEED * steps
    plans[..., 1] = offsets[..., None] * steps / 8
    return plans


def choose(cases: Cases, selection: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Negatives (N, K, 8, 3) of the scenes, and which of them are any."""
    selector = SELECTORS.build({"type": "NearestNegatives", **selection})
    away = SPREAD * torch.randn(len(cases.expert), 64, generator=torch.Generator().manual_seed(5))
    fails = (away > cases.left[:, None]) | (away < -cases.right[:, None])
    scores = np.ones((*fails.shape, 7), np.float32)
    scores[fails.numpy(), 6] = 0.0
    proposals = plans_of(cases.expert[:, None] + away)
    chosen, valid = selector(proposals.numpy(), scores, plans_of(cases.expert).numpy())
    rows = torch.arange(len(fails))[:, None]
    return proposals[rows, torch.from_numpy(chosen)], torch.from_numpy(valid)


def train(error: float, loss: dict[str, Any] | None, selection: dict[str, Any]) -> float:
    """Train a planner and return its share of safe plans on other scenes."""
    cases = make_cases(NUM_TRAIN, error, seed=1)
    experts = plans_of(cases.expert)
    negatives, valid = choose(cases, selection)
    repulsion = None if loss is None else RepulsiveDistanceLoss(attraction_weight=ATTRACTION, **loss)
    torch.manual_seed(0)
    planner = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(planner.parameters())
    for step in range(NUM_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / NUM_STEPS)
        rows = torch.randint(0, NUM_TRAIN, (BATCH,))
        plans = plans_of(planner(cases.seen[rows])[:, 0])
        total = ATTRACTION * (plans - experts[rows]).abs().mean()
        if repulsion is not None:
            total = total + repulsion(plans, Negatives(negatives[rows], valid[rows], expert=experts[rows]))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    unseen = make_cases(NUM_TEST, error, seed=2)
    with torch.no_grad():
        offset = planner(unseen.seen)[:, 0] - unseen.expert
    return float(((offset < unseen.left) & (offset > -unseen.right)).float().mean())


def settings() -> dict[str, tuple[dict[str, Any] | None, dict[str, Any]]]:
    """Loss and selection by name."""
    found: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {"imitation": (None, {})}
    for weight in (2.5, 5.0, 7.5):
        found[f"published, weight {weight:g}"] = ({"weight": weight}, {})
    for name in ("margin", "reach", "in_range", "several"):
        piece = Config.fromfile(PIECES / f"{name}.py").to_dict()
        found[name] = ({"weight": 5.0, **piece["model"]["repulsion"]}, piece.get("negative_selection", {}))
    return found


def main() -> None:
    """Print the shares of safe plans in percent."""
    torch.set_num_threads(1)
    print(f"{'error of the planner [m]':<26}" + "".join(f"{error:>8}" for error in ERRORS))
    for name, (loss, selection) in settings().items():
        shares = [100 * train(error, loss, selection) for error in ERRORS]
        print(f"{name:<26}" + "".join(f"{share:>8.1f}" for share in shares), flush=True)


if __name__ == "__main__":
    main()
