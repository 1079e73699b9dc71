"""Learning-rate schedules of the published planners, as mmengine parameter schedulers."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler

from beyonddrive.registry import PARAM_SCHEDULERS


def warmup_cosine(step: int, total: int, warmup: int, peak: float, floor: float) -> float:
    """Learning rate at ``step`` of ``total``: linear warm-up to ``peak``, then half a cosine to ``floor``.

    Step e of W warm-up steps has ``peak * (e + 1) / W``; later ones
    ``floor + (peak - floor) / 2 * (1 + cos(pi * (e - W) / (total - W)))`` (MODELS, section 10). The floor
    itself would be reached at step ``total``.

    >>> [warmup_cosine(e, 4, 2, 1.0, 0.0) for e in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return floor
    return floor + 0.5 * (peak - floor) * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(LRSchedulerMixin, _ParamScheduler):
    """Linear warm-up, then a cosine, stepped once per epoch (METHOD, section 5; MODELS, section 10).

    The horizon is ``end``, which the runner sets to ``train_cfg.max_epochs``. Every parameter group keeps its
    own scale: a group with ``lr_mult=0.5`` has half the learning rate of the others at every epoch, at the
    floor too. (The reference schedules overwrite all groups with one value; MODELS, quirk 16.)

    Args:
        optimizer: The optimizer; its default ``lr`` is the peak.
        warmup: Epochs (steps, if ``by_epoch=False``) of warm-up.
        eta_min: The floor, for a group whose peak is the optimizer's default ``lr``.
        **kwargs: ``begin``, ``end``, ``by_epoch``, ``last_step``, ``verbose`` as for any mmengine scheduler.

    Raises:
        ValueError: If the warm-up is longer than the horizon, or the floor is above the peak.
    """

    def __init__(self, optimizer: Any, warmup: int, eta_min: float = 0.0, **kwargs: Any) -> None:
        self.warmup = warmup
        self.eta_min = eta_min
        wrapped = getattr(optimizer, "optimizer", optimizer)
        self.peak = float(wrapped.defaults["lr"])
        self.total = kwargs.get("end", INF) - kwargs.get("begin", 0)
        if not 0 <= warmup <= self.total or self.total >= INF:
            raise ValueError(
                f"WarmupCosineLR: warmup={warmup} must be at least 0 and at most the {self.total} epochs "
                "of the schedule; set param_scheduler.warmup, or end to a number of epochs"
            )
        if not 0.0 <= eta_min <= self.peak:
            raise ValueError(f"WarmupCosineLR: eta_min={eta_min} must lie between 0 and lr={self.peak}")
        super().__init__(optimizer, **kwargs)

    @classmethod
    def build_iter_from_epoch(
        cls, begin: int = 0, end: int = INF, by_epoch: bool = True, **kwargs: Any
    ) -> WarmupCosineLR:
        """Build the same curve stepped every iteration (``convert_to_iter_based=True`` in the config)."""
        length = kwargs.pop("epoch_length", None)
        if not by_epoch or not isinstance(length, int) or length < 1:
            raise ValueError(
                "WarmupCosineLR: convert_to_iter_based needs by_epoch=True and a known epoch length"
            )
        kwargs["warmup"] *= length
        return cls(begin=begin * length, end=end * length, by_epoch=False, **kwargs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the position of a saved schedule; its shape stays the one of the config."""
        for key in ("last_step", "_global_step", "_last_value", "base_values"):
            setattr(self, key, state_dict[key])

    def _get_value(self) -> list[float]:
        rate = warmup_cosine(self.last_step, self.total, self.warmup, self.peak, self.eta_min)
        return [base * rate / self.peak for base in self.base_values]
