"""Sampling strategies: how a generator is asked for proposals (METHOD, section 2).

A strategy draws ``num_proposals`` plans per scene from a generator, that is from a planner with a method
``propose``. The noise of a scene comes from its own random generator, seeded by the seed of the job, the
token of the scene and the stream: what a scene gets does not depend on the batch it is in, on the
order of scenes or on the number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from beyonddrive.registry import STRATEGIES
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import NUM_POSES


class StrategyError(BeyondDriveError, ValueError):
    """A strategy is configured wrongly, or a generator gives something else than it was asked for."""


Stream = tuple[int, ...]
"""Which of several independent draws of a scene; strategies made of others number their parts."""


class Proposer(Protocol):
    """A generator: a planner that can be asked for many plans."""

    def propose(
        self,
        inputs: dict[str, Tensor],
        num_proposals: int,
        strategy: Any,
        generator: Sequence[torch.Generator],
    ) -> Tensor:
        """Draw plans (B, n, 8, 3); ``generator`` holds one source of noise per scene."""
        ...


class Strategy(Protocol):
    """What mining needs of a strategy."""

    num_proposals: int

    @property
    def config(self) -> dict[str, Any]:
        """Config that builds the same strategy, with every value that it depends on."""
        ...

    def __call__(
        self,
        planner: Proposer,
        inputs: dict[str, Tensor],
        tokens: Sequence[str],
        seed: int = 0,
        stream: Stream = (),
    ) -> Tensor:
        """Draw plans (B, num_proposals, 8, 3) for the scenes ``tokens``."""
        ...


def check_generator(planner: object, strategy: Strategy) -> None:
    """Refuse a planner that cannot do what a strategy asks of it, before any scene is read.

    Raises:
        StrategyError: If the strategy, or one that it is made of, samples, and the planner does not.
    """
    for part in _made_of(strategy):
        check_generator(planner, part)
    if isinstance(strategy, SamplingStrategy) and not hasattr(planner, "propose"):
        raise StrategyError(
            f"{type(planner).__name__} is not a generator (it has no method propose); use FlowPolicy or "
            "another planner that samples"
        )


def idle_guidance(planner: object, strategy: Strategy) -> str | None:
    """What to tell of a strategy whose guidance does nothing with a planner; None if it does something.

    Heads with noise of their own, those of DiffusionDrive and MeanFuser, know none
    (:class:`~beyonddrive.plugins.base.sampling.SamplingHead`).
    """
    if getattr(planner, "knows_guidance", True):
        return None
    values = _guidances(strategy)
    told = ", ".join(f"{value:g}" for value in sorted(values))
    return f"{type(planner).__name__} knows no guidance: guidance={told} does nothing" if values else None


def _guidances(strategy: Strategy) -> set[float]:
    """Guidance scales of a strategy and of those that it is made of."""
    own = {strategy.guidance} if isinstance(strategy, SamplingStrategy) else set()
    return own.union(*map(_guidances, _made_of(strategy)))


def _made_of(strategy: Strategy) -> list[Strategy]:
    """Strategies that one is made of; none of most."""
    found = [getattr(strategy, "base", None), *getattr(strategy, "parts", ())]
    return [part for part in found if part is not None]


def scene_seed(seed: int, token: str, stream: Stream = ()) -> int:
    """Seed of the noise of a scene: a hash of the seed of the job, the token and the stream.

    >>> scene_seed(0, 'a') == scene_seed(0, 'a'), scene_seed(0, 'a') == scene_seed(1, 'a')
    (True, False)
    >>> 0 <= scene_seed(7, 'token', (0, 3)) < 2 ** 63
    True
    """
    digest = hashlib.blake2b(f"{seed}/{'.'.join(map(str, stream))}/{token}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def scene_generators(seed: int, tokens: Sequence[str], stream: Stream = ()) -> list[torch.Generator]:
    """One random generator per scene, on the CPU so that every device gets the same noise.

    >>> torch.rand(1, generator=scene_generators(0, ['a', 'b'])[1]) == torch.rand(
    ...     1, generator=scene_generators(0, ['b'])[0])
    tensor([True])
    """
    return [torch.Generator("cpu").manual_seed(scene_seed(seed, token, stream)) for token in tokens]


@STRATEGIES.register_module()
class SamplingStrategy:
    """One setting for all proposals; the defaults are the published diversity-aware ones.

    Args:
        num_proposals: Plans per scene.
        guidance: Classifier-free guidance scale; below 1 the condition is weakened and plans spread.
        noise: Standard deviation of the noise the plans start from; above the training noise (0.2) they
            leave the mode. DiffusionDrive and MeanFuser as generators multiply noise of their own by it (they
            plan with 1, so the defaults keep them nearer to it than planning does) and know no guidance.
        steps: Euler steps.

    Raises:
        StrategyError: If a value is out of range.

    >>> SamplingStrategy().num_proposals
    64
    """

    def __init__(
        self, num_proposals: int = 64, guidance: float = 0.5, noise: float = 0.4, steps: int = 5
    ) -> None:
        if num_proposals < 1 or steps < 1:
            raise StrategyError(
                f"{type(self).__name__}: num_proposals and steps must be at least 1, got {num_proposals} and "
                f"{steps}"
            )
        if not (noise > 0.0 and abs(guidance) < float("inf") and noise < float("inf")):
            raise StrategyError(
                f"{type(self).__name__}: noise must be positive and guidance finite, got {noise}, {guidance}"
            )
        self.num_proposals = num_proposals
        self.guidance = guidance
        self.noise = noise
        self.steps = steps

    @property
    def config(self) -> dict[str, Any]:
        """Config that builds the same strategy."""
        return {
            "type": type(self).__name__,
            "num_proposals": self.num_proposals,
            "guidance": self.guidance,
            "noise": self.noise,
            "steps": self.steps,
        }

    def __call__(
        self,
        planner: Proposer,
        inputs: dict[str, Tensor],
        tokens: Sequence[str],
        seed: int = 0,
        stream: Stream = (),
    ) -> Tensor:
        """Draw plans (B, num_proposals, 8, 3); see :class:`Strategy`.

        Raises:
            StrategyError: If the planner cannot propose or returns another shape.
        """
        check_generator(planner, self)
        generators = scene_generators(seed, tokens, stream)
        plans = planner.propose(inputs, self.num_proposals, self, generators)
        wanted = (len(tokens), self.num_proposals, NUM_POSES, 3)
        if tuple(plans.shape) != wanted:
            raise StrategyError(
                f"{type(planner).__name__}.propose: wanted {wanted}, got {tuple(plans.shape)}"
            )
        return plans


@STRATEGIES.register_module()
class PlainSampling(SamplingStrategy):
    """FlowPolicy's own distribution: full guidance and the training noise (METHOD, section 1).

    DiffusionDrive and MeanFuser plan with noise 1; see :class:`SamplingStrategy`.

    >>> PlainSampling().guidance, PlainSampling().noise
    (1.0, 0.2)
    """

    def __init__(
        self, num_proposals: int = 64, guidance: float = 1.0, noise: float = 0.2, steps: int = 5
    ) -> None:
        super().__init__(num_proposals, guidance, noise, steps)


@STRATEGIES.register_module()
class MixtureSampling:
    """Proposals of several strategies side by side, so that near and far failures are both covered.

    Args:
        parts: Configs of strategies; their proposals follow each other in this order. Each part has its own
            stream of noise, so adding a part does not change the others.

    >>> MixtureSampling([dict(num_proposals=16, noise=noise) for noise in (0.2, 0.4)]).num_proposals
    32
    """

    def __init__(self, parts: Sequence[Mapping[str, Any]]) -> None:
        if not parts:
            raise StrategyError("MixtureSampling: parts must name at least one strategy")
        self.parts = [build_strategy(part) for part in parts]
        self.num_proposals = sum(part.num_proposals for part in self.parts)

    @property
    def config(self) -> dict[str, Any]:
        """Config that builds the same strategy."""
        return {"type": type(self).__name__, "parts": [part.config for part in self.parts]}

    def __call__(
        self,
        planner: Proposer,
        inputs: dict[str, Tensor],
        tokens: Sequence[str],
        seed: int = 0,
        stream: Stream = (),
    ) -> Tensor:
        """Draw plans (B, num_proposals, 8, 3); see :class:`Strategy`."""
        return torch.cat(
            [part(planner, inputs, tokens, seed, (*stream, index)) for index, part in enumerate(self.parts)],
            dim=1,
        )


@STRATEGIES.register_module()
class FarthestPointSampling:
    """A larger draw thinned to plans that are far from each other.

    Starts at the draw nearest to the mean of all draws and adds, one by one, the draw whose nearest chosen
    plan is farthest; so the same number of scored plans reaches more failure modes.

    Args:
        base: Config of the strategy that draws.
        num_proposals: Plans kept per scene.
        heading_scale: Metres that one radian of heading counts for.

    Raises:
        StrategyError: If fewer plans are drawn than kept, or the scale is out of range.

    >>> FarthestPointSampling(dict(num_proposals=256), num_proposals=64).base.num_proposals
    256
    """

    def __init__(self, base: Mapping[str, Any], num_proposals: int = 64, heading_scale: float = 1.0) -> None:
        self.base = build_strategy(base)
        if not 1 <= num_proposals <= self.base.num_proposals:
            raise StrategyError(
                f"FarthestPointSampling: num_proposals must be in 1 .. {self.base.num_proposals} (drawn by "
                f"base), got {num_proposals}"
            )
        if not 0.0 <= heading_scale < float("inf"):
            raise StrategyError(
                f"FarthestPointSampling: heading_scale must be metres, not negative, got {heading_scale}"
            )
        self.num_proposals = num_proposals
        self.heading_scale = heading_scale

    @property
    def config(self) -> dict[str, Any]:
        """Config that builds the same strategy."""
        return {
            "type": type(self).__name__,
            "base": self.base.config,
            "num_proposals": self.num_proposals,
            "heading_scale": self.heading_scale,
        }

    def __call__(
        self,
        planner: Proposer,
        inputs: dict[str, Tensor],
        tokens: Sequence[str],
        seed: int = 0,
        stream: Stream = (),
    ) -> Tensor:
        """Draw plans (B, num_proposals, 8, 3); see :class:`Strategy`."""
        plans = self.base(planner, inputs, tokens, seed, stream)
        keep = farthest_points(plans, self.num_proposals, self.heading_scale)
        return plans.gather(1, keep[:, :, None, None].expand(-1, -1, *plans.shape[2:]))


def farthest_points(plans: Tensor, num: int, heading_scale: float = 1.0) -> Tensor:
    """Indices (B, num) of plans (B, n, 8, 3) that are far from each other, the most central one first.

    >>> plans = torch.zeros(1, 4, 8, 3); plans[0, :, :, 1] = torch.tensor([[0.0], [0.1], [5.0], [-2.0]])
    >>> farthest_points(plans, 3).tolist()
    [[1, 2, 3]]
    """
    headings = heading_scale * torch.cat([plans[..., 2:].sin(), plans[..., 2:].cos()], dim=-1)
    points = torch.cat([plans[..., :2], headings], dim=-1).flatten(2)  # (B, n, 8 * 4)
    nearest = (points - points.mean(dim=1, keepdim=True)).square().sum(-1)  # (B, n)
    chosen = [nearest.argmin(dim=1)]
    nearest = torch.full_like(nearest, float("inf"))
    for _ in range(num - 1):
        last = points.gather(1, chosen[-1][:, None, None].expand(-1, 1, points.shape[2]))
        nearest = torch.minimum(nearest, (points - last).square().sum(-1))
        # A chosen plan must not be chosen again, not even among equal plans.
        nearest.scatter_(1, chosen[-1][:, None], -1.0)
        chosen.append(nearest.argmax(dim=1))
    return torch.stack(chosen, dim=1)


def build_strategy(config: Mapping[str, Any]) -> Strategy:
    """Build a strategy from its config; without a ``type`` it is a :class:`SamplingStrategy`.

    Raises:
        StrategyError: If type, arguments or values are wrong.

    >>> build_strategy(dict(noise=0.3)).noise
    0.3
    """
    try:
        strategy: Strategy = STRATEGIES.build({"type": "SamplingStrategy", **config})
    except (KeyError, TypeError) as error:
        raise StrategyError(f"strategy {dict(config)}: {error}") from error
    return strategy
