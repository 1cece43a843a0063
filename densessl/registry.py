"""Child registries of mmengine's, scope ``densessl``. Each imports its modules when first asked."""

from mmengine import registry as mm


class Registry(mm.Registry):
    """Looks names up here first, whatever OpenMMLab project has worked in this process before.

    mmengine looks first in the scope that the last ``Runner`` or ``init_default_scope`` has left.
    """

    def build(self, cfg, *args, **kwargs):
        """mmengine's ``build``; ``_scope_`` in ``cfg`` overrides the scope, as there."""
        if isinstance(cfg, dict):
            cfg = {"_scope_": "densessl", **cfg}
        return super().build(cfg, *args, **kwargs)


MODELS = Registry("model", parent=mm.MODELS, scope="densessl", locations=["densessl.models"])
DATASETS = Registry(
    "dataset", parent=mm.DATASETS, scope="densessl", locations=["densessl.datasets"]
)
DATA_SAMPLERS = Registry(
    "data sampler", parent=mm.DATA_SAMPLERS, scope="densessl", locations=["densessl.datasets"]
)
TRANSFORMS = Registry(
    "transform", parent=mm.TRANSFORMS, scope="densessl", locations=["densessl.transforms"]
)
OPTIMIZERS = Registry(
    "optimizer", parent=mm.OPTIMIZERS, scope="densessl", locations=["densessl.engine"]
)
PARAM_SCHEDULERS = Registry(
    "parameter scheduler",
    parent=mm.PARAM_SCHEDULERS,
    scope="densessl",
    locations=["densessl.engine"],
)
HOOKS = Registry(
    "hook",
    parent=mm.HOOKS,
    scope="densessl",
    locations=["densessl.engine", "densessl.evaluation.hook"],
)
LOOPS = Registry("loop", parent=mm.LOOPS, scope="densessl", locations=["densessl.engine"])
OPTIM_WRAPPERS = Registry(
    "optim wrapper", parent=mm.OPTIM_WRAPPERS, scope="densessl", locations=["densessl.engine"]
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=mm.OPTIM_WRAPPER_CONSTRUCTORS,
    scope="densessl",
    locations=["densessl.engine"],
)
MODEL_WRAPPERS = Registry(
    "model wrapper", parent=mm.MODEL_WRAPPERS, scope="densessl", locations=["densessl.engine"]
)
# Without these of its own, mmengine warns at every start that it had to look in its.
VISBACKENDS = Registry("vis_backend", parent=mm.VISBACKENDS, scope="densessl")
VISUALIZERS = Registry("visualizer", parent=mm.VISUALIZERS, scope="densessl")
WEIGHT_INITIALIZERS = Registry(
    "weight initializer", parent=mm.WEIGHT_INITIALIZERS, scope="densessl"
)
