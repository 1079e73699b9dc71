"""Evaluators of a config: which metrics score plans, what they are of, and where they write.

A metric that scores plans says so: its class has ``scores_plans = True`` and takes ``data_root``,
``cache_dir``, ``out_file``, ``plans_file`` and ``prefix``. Subclasses inherit that, whatever they are called
and wherever they are registered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import METRICS, Registry

from beyonddrive.engine.configs import ConfigError
from beyonddrive.engine.wrapped_datasets import unwrapped_settings


def component_class(settings: Mapping[str, Any], registry: Registry, scope: str, key: str) -> Any:
    """The class that ``settings.type`` names or, in a config of mmengine's pure-Python style, is.

    Args:
        settings: Config of a component.
        registry: Root registry of its kind.
        scope: Scope in which a name without one is looked up first.
        key: Where the settings are, to name it in an error.

    Raises:
        ConfigError: If there is no such class.
    """
    kind = settings.get("type")
    if isinstance(kind, (LazyObject, LazyAttr)):
        kind = kind.build()
    if not isinstance(kind, str):
        if kind is None:
            raise ConfigError(f"{key}: has no type; give the name of a {registry.name}")
        return kind
    with registry.switch_scope_and_registry(scope) as own:
        try:
            found = own.get(kind)
        except RuntimeError:
            found = None
    if found is None:
        raise ConfigError(
            f"{key}.type: there is no {registry.name} '{kind}'; if it is your own, import its module by "
            "custom_imports = dict(imports=[...]) in the config"
        )
    return found


def plan_metrics(config: Config, part: str) -> list[ConfigDict]:
    """Configs of the metrics of an evaluator that score plans: ``part`` is ``val`` or ``test``.

    Raises:
        ConfigError: If a metric does not exist.
    """
    return [metric for metric, _ in _plan_metrics(config, part)]


def test_on_validation(config: Config) -> None:
    """Make the scenes and metrics of validation those that a test runner judges.

    Raises:
        ConfigError: If the config has no validation.
    """
    if config.get("val_dataloader") is None or config.get("val_evaluator") is None:
        raise ConfigError(
            f"{config.filename}: has no val_dataloader or no val_evaluator, so there is nothing to judge on"
        )
    config.test_dataloader, config.test_evaluator = config.val_dataloader, config.val_evaluator


def set_result_files(
    config: Config, out_file: str | Path | None = None, plans_file: str | Path | None = None
) -> None:
    """Tell the metrics of ``test_evaluator`` where to write, in place.

    One metric writes ``out_file`` itself. Several write one file each, which the prefix of their figures
    tells apart: ``results.csv`` becomes ``results_pdms.csv`` and ``results_epdms_one_stage.csv``. The plans
    are the same for all and are written once.

    Raises:
        ConfigError: If no metric scores plans, or two have figures and files of the same name.
    """
    metrics = list(_plan_metrics(config, "test"))
    prefixes = [metric.get("prefix") or kind.default_prefix for metric, kind in metrics]
    if double := [prefix for prefix, count in Counter(prefixes).items() if count > 1]:
        raise ConfigError(
            f"test_evaluator: {prefixes.count(double[0])} metrics have the prefix '{double[0]}', so their "
            "figures have the same names; give each its own prefix=..."
        )
    for name, path in (("out_file", out_file), ("plans_file", plans_file)):
        if path is not None and not metrics:
            raise ConfigError(
                f"{name}: test_evaluator has no metric that scores plans, so nothing would write {path}; "
                "add one, such as the PDM score of configs/_base_/datasets"
            )
    if out_file is not None:
        for (metric, _), prefix in zip(metrics, prefixes, strict=True):
            path = Path(out_file)
            several = len(metrics) > 1
            metric["out_file"] = str(path.with_stem(f"{path.stem}_{prefix}") if several else path)
    if plans_file is not None:
        metrics[0][0]["plans_file"] = str(plans_file)


def check_roots(config: Config) -> None:
    """Refuse to score the plans of one data root by the scenes of another, which may have the same tokens.

    Raises:
        ConfigError: If a metric and the data set whose plans it scores have different roots.
    """
    for part in ("val", "test"):
        for dataset in unwrapped_settings((config.get(f"{part}_dataloader") or {}).get("dataset", {})):
            for metric in plan_metrics(config, part):
                roots = [node.get("data_root") for node in (dataset, metric)]
                if None not in roots and len({Path(root).resolve() for root in roots}) > 1:
                    raise ConfigError(
                        f"{part}_dataloader.dataset.data_root is {roots[0]}, but {part}_evaluator.data_root "
                        f"is {roots[1]}; make them one, best by --cfg-options data_root=..."
                    )


def _plan_metrics(config: Config, part: str) -> Iterator[tuple[ConfigDict, Any]]:
    """Configs of the metrics that score plans, and their classes."""
    key = f"{part}_evaluator"
    evaluator = config.get(key) or []
    if isinstance(evaluator, dict) and "metrics" in evaluator:  # an evaluator of one's own
        evaluator = evaluator["metrics"]
    scope = config.get("default_scope", "beyonddrive")
    for metric in [evaluator] if isinstance(evaluator, dict) else evaluator:
        kind = component_class(metric, METRICS, scope, key)
        if getattr(kind, "scores_plans", False):
            yield metric, kind
