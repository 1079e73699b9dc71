"""Every registry of the suite, each a child of mmengine's root of the same kind.

A config says ``default_scope = 'beyonddrive'`` and names components by string. The modules listed in
``locations`` are imported at the first look-up, so importing this file costs nothing but mmengine. So are
plugins: a package with an entry point in the group ``beyonddrive.plugins``, whose value is a module,
registers its components by being installed.
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry as MmengineRegistry
from torch import nn

from beyonddrive import openmmlab

SCOPE = "beyonddrive"
PLUGIN_GROUP = "beyonddrive.plugins"
"""Group of the entry points by which other packages bring planners."""

logger = logging.getLogger(__name__)
_own: list[Registry] = []
_plugin_problems: dict[str, str] | None = None


class Registry(MmengineRegistry):
    """As mmengine's; the first look-up in any of them also imports the plugins."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _own.append(self)

    def get(self, key: str) -> Any:
        """The component of a name, which may have the scope of mmdet or mmdet3d: ``'mmdet3d.SECOND'``.

        Raises:
            MMDet3DError: If it has, and that cannot be imported.
        """
        scope = key.partition(".")[0] if isinstance(key, str) and "." in key else ""
        if scope in openmmlab.SCOPES:
            openmmlab.import_scope(scope)
        return super().get(key)

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Build a component.

        Raises:
            CudaOnlyOpError: If it is a network with ops of mmcv that have no kernels on this machine.
        """
        built = super().build(*args, **kwargs)
        if isinstance(built, nn.Module):
            openmmlab.check_ops(built)
        return built

    def import_from_location(self) -> None:
        """Import what registers components here, once."""
        super().import_from_location()
        import_plugins()


def plugin_entry_points() -> tuple[EntryPoint, ...]:
    """Entry points of the installed plugins, by name; nothing is imported."""
    found = {(point.name, point.value): point for point in entry_points(group=PLUGIN_GROUP)}
    return tuple(found[key] for key in sorted(found))


def import_plugins() -> dict[str, str]:
    """Import the installed plugins, once; a broken one is reported and skipped.

    Returns:
        Name of each broken plugin -> what is wrong with it.
    """
    global _plugin_problems
    if _plugin_problems is not None:
        return _plugin_problems
    problems = _plugin_problems = {}  # what plugins import may look something up in turn
    points = plugin_entry_points()
    # First our own, so that a plugin that takes a name of ours is the one that is refused.
    for registry in _own if points else ():
        registry.import_from_location()
    for point in points:
        try:
            import_module(point.module)
        except (Exception, SystemExit) as error:
            problems[point.name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            package = point.dist.name if point.dist is not None else point.module
            logger.warning(
                "plugin %r of package %s is skipped, its import fails: %s; mend it, or pip uninstall %s",
                *(point.name, package, problems[point.name], package),
            )
    return problems


#: Planners, backbones, heads, losses and data preprocessors.
MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=["beyonddrive.backbones", "beyonddrive.heads", "beyonddrive.losses", "beyonddrive.plugins"],
)
#: Data sets: what the runner's data loaders read.
DATASETS = Registry(
    "dataset",
    parent=MMENGINE_DATASETS,
    scope=SCOPE,
    locations=[
        "beyonddrive.datasets.navsim_dataset",
        "beyonddrive.datasets.follow_up_dataset",
        "beyonddrive.datasets.private_dataset",
        "beyonddrive.datasets.info_dataset",
        "beyonddrive.datasets.shuffled_inputs",
    ],
)
#: Transforms: scene -> inputs and targets.
TRANSFORMS = Registry(
    "transform", parent=MMENGINE_TRANSFORMS, scope=SCOPE, locations=["beyonddrive.datasets.transforms"]
)
#: Samplers of data loaders.
DATA_SAMPLERS = Registry(
    "data sampler",
    parent=MMENGINE_DATA_SAMPLERS,
    scope=SCOPE,
    locations=["beyonddrive.engine.samplers"],
)
#: Metrics that a runner's evaluator calls.
METRICS = Registry(
    "metric",
    parent=MMENGINE_METRICS,
    scope=SCOPE,
    locations=[
        "beyonddrive.evaluation.pdms_metric",
        "beyonddrive.evaluation.epdms_metric",
        "beyonddrive.evaluation.bases.metrics",
        "beyonddrive.evaluation.detection_metric",
        "beyonddrive.evaluation.plan_writer",
    ],
)
#: Hooks of the runner.
HOOKS = Registry(
    "hook",
    parent=MMENGINE_HOOKS,
    scope=SCOPE,
    locations=[
        "beyonddrive.engine.hooks",
        "beyonddrive.generators.expert_noise_hook",
        "beyonddrive.evaluation.service.hook",
        "beyonddrive.generators.online_hook",
        "beyonddrive.generators.prior_hook",
        "beyonddrive.visualization.pictures_hook",
    ],
)
#: Loops of the runner.
LOOPS = Registry("loop", parent=MMENGINE_LOOPS, scope=SCOPE, locations=["beyonddrive.engine.loops"])
#: Optimizers; torch's own.
OPTIMIZERS = Registry("optimizer", parent=MMENGINE_OPTIMIZERS, scope=SCOPE, locations=[])
#: Wrappers of optimizers: precision, clipping, accumulation.
OPTIM_WRAPPERS = Registry(
    "optimizer wrapper",
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope=SCOPE,
    locations=["beyonddrive.engine.mmengine_compat"],
)
#: Learning-rate and momentum schedules.
PARAM_SCHEDULERS = Registry(
    "parameter scheduler",
    parent=MMENGINE_PARAM_SCHEDULERS,
    scope=SCOPE,
    locations=["beyonddrive.engine.schedulers"],
)
#: Builders of optimizers with per-group settings.
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor", parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, scope=SCOPE, locations=[]
)
#: What draws pictures and sends them and the figures of a runner to its backends.
VISUALIZERS = Registry(
    "visualizer",
    parent=MMENGINE_VISUALIZERS,
    scope=SCOPE,
    locations=["beyonddrive.visualization.visualizer"],
)
#: Where they go, for instance TensorBoard; mmengine's own.
VISBACKENDS = Registry("vis_backend", parent=MMENGINE_VISBACKENDS, scope=SCOPE, locations=[])
#: Box coders, assigners and the like, of modules of mmdet3d that stand in our configs.
TASK_UTILS = Registry("task util", parent=MMENGINE_TASK_UTILS, scope=SCOPE, locations=[])
#: Initializers of weights (``init_cfg``); mmengine's own.
WEIGHT_INITIALIZERS = Registry(
    "weight initializer", parent=MMENGINE_WEIGHT_INITIALIZERS, scope=SCOPE, locations=[]
)
#: Sampling strategies that a generator of negatives runs.
STRATEGIES = Registry(
    "sampling strategy",
    scope=SCOPE,
    locations=["beyonddrive.generators.strategies", "beyonddrive.generators.own_plans"],
)
#: Selectors: which proposals of a pool become the negatives of a sample.
SELECTORS = Registry("negative selector", scope=SCOPE, locations=["beyonddrive.datasets.stores.selectors"])
