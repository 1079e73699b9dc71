"""PDM score of plans, batched (PDMS_V1, section 11), and EPDMS, one stage (EPDMS_V2)."""

from __future__ import annotations

from typing import Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import ArrayLike

from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import STEP
from beyonddrive.evaluation.pdm.kernels.plan_states import plan_knots
from beyonddrive.evaluation.pdm.kernels.prepared import PreparedScene
from beyonddrive.evaluation.pdm.kernels.sub_scores import (
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
from beyonddrive.evaluation.pdm.scores.epdms import (
    EpdmsScores,
    extended_progress,
    filter_by_human,
    one_stage_score,
)
from beyonddrive.evaluation.pdm.scores.pdms import PdmScores, final_score, relative_progress
from beyonddrive.structures.plan import PlanError, check_plans

Progress = Literal["pair", "pooled"]
Version = Literal["v1", "v2"]


class ScorableScene(Protocol):
    """What the score reads of a scene: a :class:`beyonddrive.evaluation.pdm.MetricCache` has it."""

    @property
    def token(self) -> str:
        """Token of the scene, for messages."""

    @property
    def prepared(self) -> PreparedScene:
        """The scene as the PDM score sees it."""

    @property
    def prepared_extended(self) -> PreparedScene:
        """The scene as EPDMS sees it."""


@overload
def score(
    cache: ScorableScene, plans: ArrayLike, progress: Progress = "pair", version: Literal["v1"] = "v1"
) -> PdmScores: ...
@overload
def score(
    cache: ScorableScene,
    plans: ArrayLike,
    progress: Progress = "pair",
    *,
    version: Literal["v2"],
    human_filter: bool = True,
) -> EpdmsScores: ...
@overload
def score(
    cache: ScorableScene,
    plans: ArrayLike,
    progress: Progress = "pair",
    version: Version = "v1",
    human_filter: bool = True,
) -> PdmScores | EpdmsScores: ...
def score(
    cache: ScorableScene,
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
        :class:`PdmScores`, or :class:`beyonddrive.evaluation.pdm.scores.epdms.EpdmsScores` for ``'v2'``.

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


def _seconds(samples: Ints) -> Floats:
    return np.where(samples >= 0, samples * STEP, np.inf)
