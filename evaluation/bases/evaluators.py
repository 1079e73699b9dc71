"""The metric of a basis in the place of those that a config names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from beyonddrive.engine.configs import ConfigError
from beyonddrive.engine.evaluators import plan_metrics
from beyonddrive.evaluation.score_labels import BASES, Basis, LabelError

_KINDS: Mapping[tuple[str, str], str] = {
    ("PDMS", "logged"): "PDMSMetric",
    ("EPDMS", "logged"): "EPDMSMetric",
    ("EPDMS", "reactive"): "ReactiveEPDMSMetric",
}
"""Metric by score and traffic, of one stage."""
_SOURCES = ("split", "data_root", "maps_root", "cache_dir", "num_workers")
"""What a metric says of where its scenes are."""
METRIC_BASES = tuple(
    basis.name for basis in BASES.values() if basis.stages == 1 and basis.human_filter != "columns"
)
"""Bases that a planner of logged scenes can be judged on while it plans."""


def basis_named(name: str) -> Basis:
    """The basis of a name, if a metric judges on it.

    Raises:
        LabelError: If there is none; those of two stages need a data set of their own.

    >>> basis_named("epdms").score
    'EPDMS'
    """
    if name not in METRIC_BASES:
        raise LabelError(
            f"no metric judges logged scenes on the basis '{name}'; there are {', '.join(METRIC_BASES)}; "
            "of plans in a file, beyonddrive score --basis has more"
        )
    return BASES[name]


def judge_on(config: Config, basis: Basis) -> None:
    """Make a basis the one that a test judges on, in place of the metrics of the config.

    Scenes, maps and caches stay those of its first metric that scores plans.

    Raises:
        ConfigError: If the config has no such metric.
    """
    metrics = plan_metrics(config, "test")
    if not metrics:
        raise ConfigError(f"{config.filename}: test_evaluator has no metric that scores plans")
    settings: dict[str, Any] = {key: metrics[0][key] for key in _SOURCES if metrics[0].get(key) is not None}
    settings["type"] = _KINDS[basis.score, basis.traffic]
    if basis.score == "EPDMS":
        settings["human_filter"] = basis.human_filter == "on"
    if basis.traffic == "reactive":  # (a store of metric caches holds no traffic that reacts)
        settings.pop("cache_dir", None)
    config.test_evaluator = ConfigDict(settings)
