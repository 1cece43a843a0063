"""Precision, accumulation and the choice of parameters: mmengine's optimizer wrapper, adapted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from mmengine.model.wrappers import MMDistributedDataParallel
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from timm.layers import convert_sync_batchnorm
from torch import nn

from densessl.errors import UserError
from densessl.models.backbones import MMBackbone, TimmBackbone
from densessl.models.methods.base import train_step
from densessl.precision import has_bf16
from densessl.registry import (
    MODEL_WRAPPERS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
)

# Those that PyTorch fuses on CPUs and on GPUs.
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
PRECISIONS = ("auto", "bf16", "fp32")


def resolve_precision(precision: str, device: str) -> str:
    """What "auto" comes to on ``device``; the others stay.

    Raises:
        UserError: If it is none of them.
    """
    if precision not in PRECISIONS:
        raise UserError(
            f"precision is {precision!r}.", f"give one of {', '.join(map(repr, PRECISIONS))}"
        )
    if precision != "auto":
        return precision
    return "bf16" if has_bf16(device) else "fp32"


@OPTIM_WRAPPERS.register_module()
class PrecisionOptimWrapper(OptimWrapper):
    """Autocast to bf16 where the device has it, on GPU and CPU alike, without loss scaling.

    Accumulation counts micro-batches inside one training step, so it is always complete.

    Args:
        precision: "bf16", "fp32", or "auto" for bf16 where the device has it.
        **options: mmengine's ``OptimWrapper``: optimizer, accumulative_counts, clip_grad.

    Attributes:
        observers: Called before each step, when the gradients are whole and not yet clipped.
    """

    def __init__(self, precision: str = "auto", **options):
        super().__init__(**options)
        device = self.optimizer.param_groups[0]["params"][0].device.type
        self.precision = resolve_precision(precision, device)
        self.observers: list[Callable[[], None]] = []

    @property
    def accumulative_counts(self) -> int:
        """Micro-batches in one optimizer step."""
        return self._accumulative_counts

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Always starts at a boundary: the runner counts optimizer steps, this micro-batches."""
        self._inner_count, self._max_counts = 0, -1

    def step(self, **kwargs) -> None:
        """As mmengine's: clips the gradients, where that is asked for, and steps."""
        for observe in self.observers:
            observe()
        super().step(**kwargs)

    def _clip_grad(self) -> None:
        """As mmengine's, but the norm goes to the log without waiting for it."""
        groups = self.optimizer.param_groups
        params = [p for group in groups for p in group["params"] if p.grad is not None]
        norm = self.clip_func(params, **self.clip_grad_kwargs) if params else None
        if norm is not None:
            self.message_hub.update_scalar(f"train/{self.grad_name}", norm)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around one forward, and no gradient exchange before the last micro-batch."""
        device = next(model.parameters()).device.type
        bf16 = self.precision == "bf16"
        with super().optim_context(model), torch.autocast(device, torch.bfloat16, enabled=bf16):
            yield


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableParameters(DefaultOptimWrapperConstructor):
    """mmengine's constructor over the parameters that have a gradient: not the teacher's."""

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, "module", model)
        groups: list[dict] = []
        if self.paramwise_cfg:
            self.add_params(groups, model)
        else:
            groups.append(dict(params=list(model.parameters())))
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        optimizer = self.build_optimizer(_joined(groups))
        wrapper = {"type": "PrecisionOptimWrapper", **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(wrapper, default_args=dict(optimizer=optimizer))

    def build_optimizer(self, groups: list[dict]) -> torch.optim.Optimizer:
        """The optimizer that the config names, over ``groups``; fused where PyTorch has that."""
        options = dict(self.optimizer_cfg, params=groups)
        kind = options["type"]
        kind = OPTIMIZERS.get(kind) if isinstance(kind, str) else kind
        if kind in FUSED and not options.keys() & {"foreach", "differentiable"}:
            options.setdefault("fused", True)
        return OPTIMIZERS.build(options)


def _joined(groups: list[dict]) -> list[dict]:
    """The groups with the same options as one: mmengine makes one of each parameter, and an
    optimizer's step is one operation a group."""
    joined: dict[str, dict] = {}
    for group in groups:
        options = {name: value for name, value in group.items() if name != "params"}
        same = joined.setdefault(repr(sorted(options.items())), {"params": [], **options})
        same["params"] += group["params"]
    return [group for group in joined.values() if group["params"]]


@MODEL_WRAPPERS.register_module()
class PretrainDDP(MMDistributedDataParallel):
    """DistributedDataParallel with the training step over micro-batches; works on CPUs (gloo).

    On GPUs the BatchNorms of a method that asks for it (``sync_bn``) share their statistics.
    """

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **options):
        on_cpu = next(module.parameters()).device.type == "cpu"
        # timm's models may have layers that make no map, and get no gradient.
        backbone = getattr(module, "backbone", None)
        unused = isinstance(backbone, TimmBackbone) or (
            isinstance(backbone, MMBackbone) and len(backbone.out_indices) > 1
        )
        options = {"broadcast_buffers": False, "find_unused_parameters": unused, **options}
        if module.sync_bn and not on_cpu:
            module = convert_sync_batchnorm(module)  # timm's keeps activations inside of norms
        super().__init__(module, device_ids=None if on_cpu else device_ids, **options)

    def train_step(self, data, optim_wrapper: OptimWrapper) -> dict[str, torch.Tensor]:
        """See ``Method.train_step``."""
        return train_step(self, self.module, data, optim_wrapper)
