"""``PlanSample``: what is known about one scene on its way through a planner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from beyonddrive.structures.errors import BeyondDriveError

IGNORED_LABEL = -100
"""Class of a cell of a map that nobody knows: torch's cross-entropy leaves it out."""


class MissingFieldError(BeyondDriveError, KeyError):
    """A sample lacks what a loss or a metric reads."""

    def __str__(self) -> str:
        """The message, which a ``KeyError`` would put into quotes."""
        return str(self.args[0]) if self.args else ""


class PlanSample(BaseDataElement):
    """Targets, negatives and prediction of one scene; ``metainfo`` holds ``token`` and ``log_name``.

    Three elements may be set, each a ``BaseDataElement`` of tensors:

    - ``gt``: ``trajectory`` (8, 3) float32 expert plan; ``boxes`` (N, 9) float32, ``box_labels`` (N,) and
      ``box_points`` (N,) int64 (:mod:`beyonddrive.structures.agent_boxes`); ``agent_states`` (30, 5)
      float32 x, y, heading, length, width; ``agent_labels`` (30,) bool; ``bev_semantic_map`` (H, W) int64
      (MODELS, section 1). For planners that need them also ``future_bev_semantic_map`` (H, W), and the
      sub-scores of fixed plans, ``vocabulary_scores`` (V, 6) NC, DAC, EP, TTC, C, DDC, with the
      ``vocabulary_id`` () of those plans.
    - ``negatives``: ``plans`` (K, 8, 3) float32, ``valid`` (K,) bool, ``scores`` (K, 7) float32 in the order
      of :data:`beyonddrive.structures.plan.SCORE_COLUMNS`, ``columns`` (K,) int64 index of the column that
      each was chosen for, ``times`` (K,) float32 seconds until it fails in that column (inf if there is no
      such moment; absent if the pool does not know); nearest to the expert first (METHOD, section 3).
    - ``pred``: ``trajectory`` (8, 3) and, if the planner is multi-modal, ``proposals`` (M, 8, 3) and
      ``scores`` (M,); with a detection head ``boxes`` (N, 9), ``box_scores`` (N,) and ``box_labels`` (N,).

    >>> sample = PlanSample(metainfo=dict(token='a', log_name='b'))
    >>> sample.gt = BaseDataElement(trajectory=torch.zeros(8, 3))
    >>> sample.gt.trajectory.shape
    torch.Size([8, 3])
    """

    @property
    def gt(self) -> BaseDataElement:
        """Targets."""
        return self._gt

    @gt.setter
    def gt(self, value: BaseDataElement) -> None:
        self.set_field(value, "_gt", dtype=BaseDataElement)

    @gt.deleter
    def gt(self) -> None:
        del self._gt

    @property
    def negatives(self) -> BaseDataElement:
        """Hard negatives."""
        return self._negatives

    @negatives.setter
    def negatives(self, value: BaseDataElement) -> None:
        self.set_field(value, "_negatives", dtype=BaseDataElement)

    @negatives.deleter
    def negatives(self) -> None:
        del self._negatives

    @property
    def pred(self) -> BaseDataElement:
        """Prediction."""
        return self._pred

    @pred.setter
    def pred(self, value: BaseDataElement) -> None:
        self.set_field(value, "_pred", dtype=BaseDataElement)

    @pred.deleter
    def pred(self) -> None:
        del self._pred


def tokens_of_batch(batch: Any) -> tuple[str, ...]:
    """Tokens of the scenes of a batch; a batch of something else has none.

    >>> tokens_of_batch({'data_samples': [PlanSample(metainfo=dict(token='a'))]}), tokens_of_batch(None)
    (('a',), ())
    """
    samples = batch.get("data_samples") if isinstance(batch, dict) else None
    return tuple(str(getattr(sample, "metainfo", {}).get("token", "?")) for sample in samples or ())


def stack_field(samples: Sequence[PlanSample], element: str, field: str) -> Tensor:
    """Stack ``sample.<element>.<field>`` of a batch: (B, ...); not to be written to.

    Samples that a data preprocessor has prepared share the stacked tensor, and nothing is copied.

    Raises:
        MissingFieldError: If a sample lacks the field; the message names the scene and what provides it.

    >>> a = PlanSample(); a.gt = BaseDataElement(trajectory=torch.ones(8, 3))
    >>> stack_field([a, a], 'gt', 'trajectory').shape
    torch.Size([2, 8, 3])
    """
    tensors = []
    for sample in samples:
        part = getattr(sample, element, None)
        if part is None or field not in part:
            token = sample.metainfo.get("token", "?")
            raise MissingFieldError(f"scene {token} has no {element}.{field}: {_remedy(element)}")
        tensors.append(part.get(field))
    stacked = _stacked_before(tensors)
    return torch.stack(tensors) if stacked is None else stacked


def _remedy(element: str) -> str:
    if element == "negatives":
        return (
            "a repulsion reads them: add beyonddrive::_base_/negatives/pool.py to the bases of the config "
            "and set pool_dir, or leave the repulsion out"
        )
    return (
        "add the transform that makes it to the pipeline, keep PackPlanInputs last, and name a target of "
        "your own in its target_keys"
    )


def _stacked_before(rows: Sequence[Tensor]) -> Tensor | None:
    """The tensor whose rows these are, all and in order, as a data preprocessor leaves them; else None."""
    whole = rows[0]._base
    if whole is None or whole.shape != (len(rows), *rows[0].shape):
        return None
    start, step, strides = whole.storage_offset(), whole.stride(0), whole.stride()[1:]
    for index, row in enumerate(rows):
        if row._base is not whole or row.storage_offset() != start + index * step or row.stride() != strides:
            return None
    return whole
