"""Repulsion: keep a plan away from near-expert plans that fail (METHOD, section 4)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from beyonddrive.losses.counted_mean import CountOver, check_count_over, counted_mean
from beyonddrive.losses.failure_window import FailureWindow
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.structures.transfers import LateChecks

ValidRule = Literal["mask", "sum_positive"]
Reduction = Literal["nearest", "mean", "softmin"]
MarginUnit = Literal["own", "expert"]
Average = Literal["negatives", "batch"]
Difference = Callable[[Tensor, Tensor], Tensor]
"""Plans minus others (..., 8, D), as a head compares them in its own space."""


class Negatives(NamedTuple):
    """Negatives of a batch, encoded in the head's own space.

    Attributes:
        plans: (B, K, 8, D); entries that are not valid may hold anything.
        valid: (B, K) bool, which negatives count.
        columns: (B, K) index of the score column that each was chosen for; None if no loss asks.
        times: (B, K) moment of failure [s], inf if unknown; None if no loss asks.
        expert: (B, 8, D) expert plans; None if no loss asks.
    """

    plans: Tensor
    valid: Tensor
    columns: Tensor | None = None
    times: Tensor | None = None
    expert: Tensor | None = None

    def repeat(self, num: int) -> Negatives:
        """Every sample ``num`` times in a row, for ``num`` plans per sample."""
        return Negatives(
            self.plans.repeat_interleave(num, dim=0),
            self.valid.repeat_interleave(num, dim=0),
            None if self.columns is None else self.columns.repeat_interleave(num, dim=0),
            None if self.times is None else self.times.repeat_interleave(num, dim=0),
            None if self.expert is None else self.expert.repeat_interleave(num, dim=0),
        )


@MODELS.register_module()
class RepulsiveDistanceLoss(nn.Module):
    """``-weight * mean over samples with a negative of mean |plan - negative|``, and variants of it.

    A batch without any negative gives exactly 0 and a zero gradient.

    Without a margin, and with ``weight`` as large as the attraction weight, the total is unbounded below
    (moving away from the negative earns at least what moving away from the expert costs): that is refused.

    Args:
        weight: Repulsion weight w_r; 0 switches the term off.
        attraction_weight: Weight w_t of the wrapped head's L1 term.
        valid_rule: ``'mask'`` trusts the sample's own mask. ``'sum_positive'`` also asks that the sum of all
            coordinates of the negative be > 0, as the public release does; it drops tight right turns
            (METHOD, section 6, fault 1) and exists for comparisons only.
        reduction: Of several negatives of a sample: ``'nearest'`` takes the first valid one (they are stored
            nearest to the expert first; those of ``NearestNegativesPerColumn`` column by column, so that
            without ``column_weights`` the first column that has one counts), ``'mean'`` all valid ones
            alike, ``'softmin'`` all valid ones with weights that fall with their distance d from the plan:
            softmax(-d / (temperature * mean d)).
        temperature: Of ``'softmin'``: near 0 only the negative nearest to the plan counts, far above 1 all
            count alike.
        margin: If given, a negative repels a plan only within this distance, with
            ``weight * max(0, margin - distance)`` instead of ``-weight * distance``: bounded below by 0.
        margin_unit: ``'own'``: ``margin`` is a distance, mean |.|, in the head's own space. ``'expert'``: it
            is a multiple of the negative's distance from the expert; with 1, a plan is repelled only while
            it is nearer to the failure than the expert is.
        reach: A negative repels from ``expert + reach * (negative - expert)``: 1 as published; above 1 also a
            plan that errs beyond the negative is pushed back to the expert. For planners whose errors are
            larger than the distance of the negatives.
        column_weights: Factors on ``weight`` for the negatives of each sub-score, by its name; the terms of
            the sub-scores are reduced and averaged apart, then summed. None treats all negatives alike.
        window: Arguments of :class:`FailureWindow`: repulsion acts around the moment of failure. None repels
            all poses alike.
        average: ``'negatives'``: mean over the samples that have a negative, as published; if only a share s
            of a batch has one, each of them is repelled 1 / s times as strongly. ``'batch'``: mean over all
            samples, so that ``weight`` against ``attraction_weight`` is what every sample sees.
        count_over: In distributed training ``'negatives'`` counts the samples of all ranks; ``'own_rank'``:
            those of the rank's own batch, as in the release.
        centred: Take the mean push, over those samples of the rank's batch that are repelled, away from each
            of them; not from those that are out of the margin, or whose sub-scores have no weight. With a
            window it is taken pose by pose, from each in proportion to its own push. Failures that lie more
            often on one side then move plans against each other, not all of them to the other side. The
            value of the term stays the same, its gradient does not.

    Raises:
        ValueError: If a setting is out of range; in particular if ``weight >= attraction_weight`` without a
            margin.

    >>> loss = RepulsiveDistanceLoss(weight=5.0, attraction_weight=10.0)
    >>> plan, plans = torch.zeros(2, 8, 3), torch.full((2, 1, 8, 3), 0.5)
    >>> loss(plan, Negatives(plans, torch.tensor([[True], [False]])))
    tensor(-2.5000)
    >>> loss(plan, Negatives(plans, torch.tensor([[False], [False]])))
    tensor(0.)
    >>> RepulsiveDistanceLoss(weight=5.0, attraction_weight=10.0, margin=2.0)(
    ...     plan, Negatives(plans, torch.tensor([[True], [False]])))
    tensor(7.5000)
    >>> RepulsiveDistanceLoss(weight=10.0, attraction_weight=10.0)
    Traceback (most recent call last):
        ...
    ValueError: RepulsiveDistanceLoss: weight 10.0 must be smaller than attraction_weight 10.0: ...
    """

    def __init__(
        self,
        weight: float = 5.0,
        attraction_weight: float = 10.0,
        valid_rule: ValidRule = "mask",
        reduction: Reduction = "nearest",
        temperature: float = 1.0,
        margin: float | None = None,
        margin_unit: MarginUnit = "own",
        reach: float = 1.0,
        column_weights: Mapping[str, float] | None = None,
        window: Mapping[str, Any] | None = None,
        average: Average = "negatives",
        count_over: CountOver = "all_ranks",
        centred: bool = False,
    ) -> None:
        super().__init__()
        _check_choices(
            {
                "valid_rule": (valid_rule, ValidRule),
                "reduction": (reduction, Reduction),
                "margin_unit": (margin_unit, MarginUnit),
                "average": (average, Average),
            }
        )
        if not 0 <= weight < float("inf"):
            raise ValueError(f"RepulsiveDistanceLoss: weight must not be negative, got {weight}")
        if margin is not None and not 0 < margin < float("inf"):
            raise ValueError(f"RepulsiveDistanceLoss: margin must be positive or None, got {margin}")
        if not 1 <= reach < float("inf") or (reach > 1 and margin is not None):
            raise ValueError(
                f"RepulsiveDistanceLoss: reach must be at least 1, and 1 with a margin (one extends the "
                f"repulsion, the other limits it), got reach {reach} and margin {margin}"
            )
        if not 0 < temperature < float("inf"):
            raise ValueError(f"RepulsiveDistanceLoss: temperature must be positive, got {temperature}")
        shares = dict(column_weights or {})
        unknown = sorted(set(shares) - set(SCORE_COLUMNS))
        if unknown or any(not share >= 0 for share in shares.values()):
            raise ValueError(
                f"RepulsiveDistanceLoss: column_weights must be factors >= 0 by sub-score "
                f"({', '.join(SCORE_COLUMNS)}), got {shares}"
            )
        total = weight * sum(shares.values()) if shares else weight
        if margin is None and not total < attraction_weight:
            what = "weight" if not shares else "weight times the sum of column_weights"
            raise ValueError(
                f"RepulsiveDistanceLoss: {what} {total} must be smaller than attraction_weight "
                f"{attraction_weight}: otherwise the loss has no minimum and the plan runs away from the "
                f"negative. Lower weight, raise the attraction weight of the wrapped head, or set a margin."
            )
        for name, value, default, acts, needed in (
            ("temperature", temperature, 1.0, reduction == "softmin", "reduction='softmin'"),
            ("margin_unit", margin_unit, "own", margin is not None, "a margin"),
        ):
            if value != default and not acts:
                told = f"RepulsiveDistanceLoss: {name}={value!r} does nothing without {needed}"
                print_log(told, "current", level=logging.WARNING)
        self.weight = weight
        self.attraction_weight = attraction_weight
        self.valid_rule = valid_rule
        self.reduction = reduction
        self.temperature = temperature
        self.margin = margin
        self.margin_unit = margin_unit
        self.reach = reach
        self.column_weights = shares
        self._checks = LateChecks()
        self.window = None if window is None else FailureWindow(**window)
        self.average = average
        self.count_over = check_count_over(count_over, "RepulsiveDistanceLoss")
        self.centred = centred

    @property
    def needs_columns(self) -> bool:
        """Whether it reads ``Negatives.columns``."""
        return bool(self.column_weights)

    @property
    def needs_times(self) -> bool:
        """Whether it reads ``Negatives.times``."""
        return self.window is not None

    @property
    def needs_expert(self) -> bool:
        """Whether it reads ``Negatives.expert``."""
        return self.reach > 1 or (self.margin is not None and self.margin_unit == "expert")

    def counted(self, plans: Tensor, valid: Tensor) -> Tensor:
        """Which negatives (B, K) count under ``valid_rule``.

        Args:
            plans: (B, K, 8, 3) negatives in metres and radians.
            valid: (B, K) bool mask of the samples.
        """
        if self.valid_rule == "sum_positive":
            return valid & (plans.sum(dim=(-2, -1)) > 0)
        return valid

    def check_columns(self, columns: Tensor) -> None:
        """Refuse negatives (B, K) that were chosen for other sub-scores than ``column_weights`` names.

        Raises:
            ValueError: With both lists and the remedy; on a GPU at a later call, so that no step waits.
        """

        def error() -> ValueError:
            chosen = {SCORE_COLUMNS[index] for index in columns.unique().tolist()}
            return ValueError(
                f"RepulsiveDistanceLoss: column_weights are for {sorted(self.column_weights)}, but the "
                f"negatives were chosen for {sorted(chosen)}: give LoadNegatives the selection "
                f"dict(type='NearestNegativesPerColumn', columns={sorted(self.column_weights)})"
            )

        found = [(columns == index).any() for index in range(len(SCORE_COLUMNS))]
        fits = [
            there if name in self.column_weights else ~there
            for name, there in zip(SCORE_COLUMNS, found, strict=True)
        ]
        self._checks(torch.stack(fits).all(), error)

    def forward(self, prediction: Tensor, negatives: Negatives, difference: Difference = torch.sub) -> Tensor:
        """The term of a batch, a scalar: at most 0 without a margin, at least 0 with one.

        Args:
            prediction: (B, 8, D) plans in the head's own space.
            negatives: Their negatives, with what the ``needs_*`` properties ask for.
            difference: That of the attraction.

        Raises:
            ValueError: If the shapes do not fit together, or something is missing.
        """
        self._check(prediction, negatives)
        term = self._term(prediction, negatives, difference)
        if self.centred and prediction.requires_grad:
            term = term - self._mean_push(term, prediction, negatives.valid.any(dim=1))
        return term

    def _mean_push(self, term: Tensor, prediction: Tensor, valid: Tensor) -> Tensor:
        """0, with the mean gradient of ``term`` in each row of ``prediction`` (B, 8, D) that is repelled.

        ``valid`` (B,) says which rows have a negative.
        """
        (push,) = torch.autograd.grad(term, prediction, retain_graph=True)
        if self.window is not None:
            # A Gaussian is nowhere 0: where it pushes next to nothing, next to nothing is taken away.
            held = push.abs().mean(dim=-1, keepdim=True)  # (B, 8, 1)
        elif self.margin is not None or self.column_weights:
            held = (push != 0).any(dim=-1, keepdim=True).any(dim=-2, keepdim=True)  # (B, 1, 1)
        else:
            held = valid[:, None, None]
        total = held.sum(dim=0)
        mean = (push * (held != 0)).sum(dim=0) / torch.where(total > 0, total, torch.ones_like(total))
        return ((prediction - prediction.detach()) * mean * held).sum()

    def _term(self, prediction: Tensor, negatives: Negatives, difference: Difference) -> Tensor:
        """The term with the gradient of its definition."""
        valid = negatives.valid
        poses = None if self.window is None or negatives.times is None else self.window(negatives.times)
        # In float32: half-precision metres would round the distance to a near negative away.
        plans = prediction.float()[:, None].expand(-1, valid.shape[1], -1, -1)
        # An invalid entry may hold NaN, which survives multiplication by 0, also in the gradient.
        failing = torch.where(valid[..., None, None], negatives.plans.to(plans.dtype), plans.detach())
        distance = _distance(difference(plans, failing), poses)  # (B, K), 0 where not valid
        gain = distance
        if negatives.expert is not None and self.needs_expert:
            expert = negatives.expert.to(plans.dtype)[:, None].expand_as(failing)
            offset = difference(failing, expert)
            if self.reach > 1:
                # The plans themselves where a negative is not valid.
                away = torch.where(valid[..., None, None], expert + self.reach * offset, plans.detach())
                gain = _distance(difference(plans, away), poses)
            if self.margin is not None:
                gain = (gain - self.margin * _distance(offset, poses)).clamp(max=0.0)
        elif self.margin is not None:
            gain = (gain - self.margin).clamp(max=0.0)
        if not self.column_weights:
            return 0.0 - self.weight * self._mean(gain, distance, valid)
        assert negatives.columns is not None
        total = prediction.new_zeros(())
        for name, share in self.column_weights.items():
            own = valid & (negatives.columns == SCORE_COLUMNS.index(name))
            total = total - self.weight * share * self._mean(gain, distance, own)
        return total

    def _mean(self, gain: Tensor, distance: Tensor, valid: Tensor) -> Tensor:
        """Mean over samples of the reduced gain (B, K) of their valid negatives (B, K)."""
        if self.reduction == "nearest":
            # Rank 1 in the running count marks the first valid negative of each sample.
            shares = (valid & (valid.cumsum(dim=1) == 1)).float()
        else:
            count = valid.sum(dim=1, keepdim=True).clamp(min=1)
            shares = valid / count
            if self.reduction == "softmin":
                away = distance.detach()
                scale = self.temperature * (away * shares).sum(dim=1, keepdim=True)
                scores = -away / scale.clamp(min=torch.finfo(away.dtype).tiny)
                weights = scores.masked_fill(~valid, -torch.inf).softmax(dim=1)
                shares = torch.where(valid.any(dim=1, keepdim=True), weights, shares)
        total = (shares * gain).sum(dim=1).sum()
        if self.average == "batch":
            return total / len(valid)
        return counted_mean(total, valid.any(dim=1).sum(), self.count_over)

    def _check(self, prediction: Tensor, negatives: Negatives) -> None:
        plans, valid = negatives.plans, negatives.valid
        shape = (prediction.shape[0], valid.shape[-1], *prediction.shape[1:])
        if plans.shape != shape or valid.shape != shape[:2]:
            raise ValueError(
                f"RepulsiveDistanceLoss: prediction {tuple(prediction.shape)} (B, 8, D) needs negatives "
                f"(B, K, 8, D) and valid (B, K), got {tuple(plans.shape)} and {tuple(valid.shape)}"
            )
        for name in ("columns", "times", "expert"):
            if getattr(self, f"needs_{name}") and getattr(negatives, name) is None:
                raise ValueError(f"RepulsiveDistanceLoss: these settings need negatives.{name}, got None")


def _distance(difference: Tensor, poses: Tensor | None) -> Tensor:
    """Mean |.| (B, K) of differences (B, K, 8, D), with weights of the poses (B, K, 8)."""
    distance = difference.abs().mean(dim=-1)
    return (distance if poses is None else distance * poses).mean(dim=-1)


def _check_choices(choices: Mapping[str, tuple[str, Any]]) -> None:
    for name, (value, options) in choices.items():
        if value not in get_args(options):
            raise ValueError(
                f"RepulsiveDistanceLoss: {name} must be one of {get_args(options)}, got {value!r}"
            )
