"""Child registries of mmengine's, scope ``densessl``. Each imports its modules when first asked."""

from mmengine import registry as mm

MODELS = mm.Registry("model", parent=mm.MODELS, scope="densessl", locations=["densessl.models"])
DATASETS = mm.Registry(
    "dataset", parent=mm.DATASETS, scope="densessl", locations=["densessl.datasets"]
)
DATA_SAMPLERS = mm.Registry(
    "data sampler", parent=mm.DATA_SAMPLERS, scope="densessl", locations=["densessl.datasets"]
)
TRANSFORMS = mm.Registry(
    "transform", parent=mm.TRANSFORMS, scope="densessl", locations=["densessl.transforms"]
)
OPTIMIZERS = mm.Registry(
    "optimizer", parent=mm.OPTIMIZERS, scope="densessl", locations=["densessl.engine"]
)
PARAM_SCHEDULERS = mm.Registry(
    "parameter scheduler",
    parent=mm.PARAM_SCHEDULERS,
    scope="densessl",
    locations=["densessl.engine"],
)
HOOKS = mm.Registry(
    "hook",
    parent=mm.HOOKS,
    scope="densessl",
    locations=["densessl.engine", "densessl.evaluation.hook"],
)
LOOPS = mm.Registry("loop", parent=mm.LOOPS, scope="densessl", locations=["densessl.engine"])
OPTIM_WRAPPERS = mm.Registry(
    "optim wrapper", parent=mm.OPTIM_WRAPPERS, scope="densessl", locations=["densessl.engine"]
)
OPTIM_WRAPPER_CONSTRUCTORS = mm.Registry(
    "optimizer wrapper constructor",
    parent=mm.OPTIM_WRAPPER_CONSTRUCTORS,
    scope="densessl",
    locations=["densessl.engine"],
)
MODEL_WRAPPERS = mm.Registry(
    "model wrapper", parent=mm.MODEL_WRAPPERS, scope="densessl", locations=["densessl.engine"]
)
# Without these of its own, mmengine warns at every start that it had to look in its.
VISBACKENDS = mm.Registry("vis_backend", parent=mm.VISBACKENDS, scope="densessl")
VISUALIZERS = mm.Registry("visualizer", parent=mm.VISUALIZERS, scope="densessl")
WEIGHT_INITIALIZERS = mm.Registry(
    "weight initializer", parent=mm.WEIGHT_INITIALIZERS, scope="densessl"
)
