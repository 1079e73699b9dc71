"""PDM score of plans, batched (PDMS_V1, section 11), and EPDMS, one stage (EPDMS_V2)."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from beyonddrive.evaluation.pdm.arrays import Floats, Ints
from beyonddrive.evaluation.pdm.cache import MetricCache
from beyonddrive.evaluation.pdm.constants import (
    COMFORT_WEIGHT,
    PROGRESS_THRESHOLD,
    PROGRESS_WEIGHT,
    STEP,
    TTC_WEIGHT,
    WEIGHT_SUM,
)
from beyonddrive.evaluation.pdm.epdms import (
    EpdmsScores,
    extended_progress,
    filter_by_human,
    one_stage_score,
)
from beyonddrive.evaluation.pdm.kernels import (
    COMFORT,
    DAC,
    DDC,
    EPDMS,
    EXTENDED_DDC,
    HISTORY_COMFORT,
    LANE_KEEPING,
    LANE_KEEPING_SAMPLE,
    NC,
    NC_OBJECT,
    NC_SAMPLE,
    PDMS,
    TLC,
    TLC_LIGHT,
    TLC_SAMPLE,
    TTC,
    TTC_OBJECT,
    TTC_SAMPLE,
    score_plans,
)
from beyonddrive.evaluation.pdm.plan_scores import PlanScores
from beyonddrive.evaluation.pdm.reference import plan_knots
from beyonddrive.structures.plan import SCORE_COLUMNS, PlanError, check_plans

Progress = Literal["pair", "pooled"]
Version = Literal["v1", "v2"]


class PdmScores(PlanScores):
    """PDM scores (N, 7) of N plans of one scene, and what explains them, as in :class:`PlanScores`."""

    columns = SCORE_COLUMNS


@overload
def score(
    cache: MetricCache, plans: ArrayLike, progress: Progress = "pair", version: Literal["v1"] = "v1"
) -> PdmScores: ...
@overload
def score(
    cache: MetricCache,
    plans: ArrayLike,
    progress: Progress = "pair",
    *,
    version: Literal["v2"],
    human_filter: bool = True,
) -> EpdmsScores: ...
@overload
def score(
    cache: MetricCache,
    plans: ArrayLike,
    progress: Progress = "pair",
    version: Version = "v1",
    human_filter: bool = True,
) -> PdmScores | EpdmsScores: ...
def score(
    cache: MetricCache,
    plans: ArrayLike,
    progress: Progress = "pair",
    version: Version = "v1",
    human_filter: bool = True,
) -> PdmScores | EpdmsScores:
    """Score plans of one scene.

    A plan's score does not depend on the plans it is scored with, to the last bit, unless ``progress`` is
    ``'pooled'``.

    Args:
        cache: The scene, from :func:`beyonddrive.evaluation.pdm.build_metric_cache`.
        plans: (N, 8, 3) x [m], y [m], heading [rad] of the rear axle every 0.5 s, in the ego frame now.
        progress: ``'pair'`` divides the progress of each plan by the larger of its own and the reference
            planner's, as one official call per plan does; ``'pooled'`` by the largest of the whole batch.
        version: ``'v1'`` is the PDM score, ``'v2'`` the one-stage EPDMS of NAVSIM v2.
        human_filter: Do not charge a plan with what the human driver fails as well; EPDMS only.

    Returns:
        :class:`PdmScores`, or :class:`beyonddrive.evaluation.pdm.epdms.EpdmsScores` for ``'v2'``.

    Raises:
        PlanError: If the plans have another shape, hold NaN or infinity, or leave the range of numbers in
            which they can be simulated.
        MetricCacheError: If EPDMS is asked for and the cache does not hold what it needs.
    """
    plans = np.ascontiguousarray(check_plans(plans, cache.token))
    if progress not in ("pair", "pooled"):
        raise ValueError(f"progress must be 'pair' or 'pooled', got {progress!r}")
    if version not in ("v1", "v2"):
        raise ValueError(f"version must be 'v1' or 'v2', got {version!r}")
    extended = version == "v2"
    scene = cache.prepared_extended if extended else cache.prepared
    states, flags, scores, raw, first = score_plans(
        plan_knots(plans, scene.ego),
        scene.interval,
        scene.time,
        scene.ego,
        scene.world,
        EPDMS if extended else PDMS,
    )
    finite = np.isfinite(states[:, -1]).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise PlanError(
            f"{cache.token}: {len(bad)} plan(s) are too far off to be simulated, the first is plan {bad[0]}; "
            f"positions are metres in the ego frame"
        )
    shared: dict[str, Any] = {
        "nc_time": _seconds(first[:, NC_SAMPLE]),
        "ttc_time": _seconds(first[:, TTC_SAMPLE]),
        "nc_object": first[:, NC_OBJECT],
        "ttc_object": first[:, TTC_OBJECT],
        "areas": flags,
        "progress": raw,
        "simulated": states,
    }
    pooled = progress == "pooled"
    nc, dac, ttc = scores[:, NC], scores[:, DAC], scores[:, TTC]
    if not extended:
        comfort, ddc = scores[:, COMFORT], scores[:, DDC]
        ep = relative_progress(raw, nc * dac, scene.reference_progress, pooled)
        pdms = final_score(nc, dac, ep, ttc, comfort)
        return PdmScores(np.column_stack([nc, dac, ep, ttc, comfort, ddc, pdms]), **shared)
    ddc, tlc = scores[:, EXTENDED_DDC], scores[:, TLC]
    ep = extended_progress(raw, nc * dac * ddc * tlc, scene.reference_progress, pooled)
    lane, comfort = scores[:, LANE_KEEPING], scores[:, HISTORY_COMFORT]
    values = np.column_stack([nc, dac, ddc, tlc, ep, ttc, lane, comfort])
    if human_filter:
        values = filter_by_human(values, scene.human)
    return EpdmsScores(
        np.column_stack([values, one_stage_score(values)]),
        human=scene.human,
        tlc_time=_seconds(first[:, TLC_SAMPLE]),
        lk_time=_seconds(first[:, LANE_KEEPING_SAMPLE]),
        tlc_light=first[:, TLC_LIGHT],
        **shared,
    )


def relative_progress(progress: Floats, multiplier: Floats, reference: float, pooled: bool) -> Floats:
    """EP (N,) from progress (N,) [m] and NC * DAC (N,) (section 11).

    Args:
        progress: Metres along the centre line.
        multiplier: NC * DAC of the same plans.
        reference: The reference planner's progress times its own NC * DAC.
        pooled: Divide by the largest of all instead of pair by pair.

    >>> relative_progress(np.array([10.0, 40.0]), np.array([1.0, 0.5]), 16.0, pooled=False).tolist()
    [0.625, 1.0]
    """
    raw = progress * multiplier
    largest = np.maximum(raw, reference)
    if pooled and len(raw):
        largest = np.full_like(raw, largest.max())
    short = largest <= PROGRESS_THRESHOLD
    return np.where(short, (multiplier != 0.0).astype(np.float64), raw / np.where(short, 1.0, largest))


def final_score(
    nc: Floats,
    dac: Floats,
    ep: Floats,
    ttc: Floats,
    comfort: Floats,
) -> Floats:
    """PDMS (N,) from its sub-scores (N,).

    >>> one = np.ones(1)
    >>> final_score(one, one, 0.4 * one, one, one).round(6).tolist()
    [0.75]
    """
    weighted = (PROGRESS_WEIGHT * ep + TTC_WEIGHT * ttc + COMFORT_WEIGHT * comfort) / WEIGHT_SUM
    return nc * dac * weighted


def _seconds(samples: Ints) -> Floats:
    return np.where(samples >= 0, samples * STEP, np.inf)
