"""Every registry of the suite, each a child of mmengine's root of the same kind.

A config says ``default_scope = 'beyonddrive'`` and names components by string. The modules listed in
``locations`` are imported at the first look-up, so importing this file costs nothing but mmengine.
"""

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
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import Registry

SCOPE = "beyonddrive"

#: Planners, backbones, heads, losses and data preprocessors.
MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=["beyonddrive.backbones", "beyonddrive.heads", "beyonddrive.losses", "beyonddrive.plugins"],
)
#: Data sets: what the runner's data loaders read.
DATASETS = Registry(
    "dataset", parent=MMENGINE_DATASETS, scope=SCOPE, locations=["beyonddrive.datasets.navsim_dataset"]
)
#: Transforms: scene -> inputs and targets.
TRANSFORMS = Registry(
    "transform", parent=MMENGINE_TRANSFORMS, scope=SCOPE, locations=["beyonddrive.datasets.transforms"]
)
#: Samplers of data loaders.
DATA_SAMPLERS = Registry("data sampler", parent=MMENGINE_DATA_SAMPLERS, scope=SCOPE, locations=[])
#: Metrics that a runner's evaluator calls.
METRICS = Registry(
    "metric",
    parent=MMENGINE_METRICS,
    scope=SCOPE,
    locations=["beyonddrive.evaluation.pdms_metric", "beyonddrive.evaluation.epdms_metric"],
)
#: Hooks of the runner.
HOOKS = Registry(
    "hook",
    parent=MMENGINE_HOOKS,
    scope=SCOPE,
    locations=[
        "beyonddrive.engine.hooks",
        "beyonddrive.generators.online_hook",
        "beyonddrive.generators.prior_hook",
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
#: Where a runner writes its figures, for instance TensorBoard; mmengine's own.
VISUALIZERS = Registry("visualizer", parent=MMENGINE_VISUALIZERS, scope=SCOPE, locations=[])
VISBACKENDS = Registry("vis_backend", parent=MMENGINE_VISBACKENDS, scope=SCOPE, locations=[])
#: Sampling strategies that a generator of negatives runs.
STRATEGIES = Registry(
    "sampling strategy",
    scope=SCOPE,
    locations=["beyonddrive.generators.strategies", "beyonddrive.generators.own_plans"],
)
#: Selectors: which proposals of a pool become the negatives of a sample.
SELECTORS = Registry("negative selector", scope=SCOPE, locations=["beyonddrive.datasets.stores.selectors"])
