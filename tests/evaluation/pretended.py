"""A pretended GPU: what is moved to it stays in memory, and mixes with no tensor of the CPU."""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda")


class OnGPU(Tensor):
    """A tensor that says it is on ``GPU``."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function == Tensor.device.__get__:
            return GPU
        if function == Tensor.cpu or function == Tensor.to and _target(args) == "cpu":
            return args[0].as_subclass(Tensor)
        tensors = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        mixed = any(not isinstance(tensor, OnGPU) and tensor.dim() for tensor in tensors)
        if mixed and function != Tensor.to:
            raise RuntimeError(f"{function.__name__} mixes devices")
        trained = kwargs.pop("requires_grad", False)  # a leaf that is made an OnGPU is none
        result = super().__torch_function__(function, types, args, kwargs)
        if function == Tensor.grad.__get__ and result is not None:
            return result.as_subclass(OnGPU)  # PyTorch leaves this one plain
        return result.requires_grad_() if trained else result


class PretendedGPU(TorchFunctionMode):
    """Inside of it ``.to(GPU)`` works.

    Attributes:
        computed: Names of the functions that were called with a tensor there.
    """

    def __init__(self):
        super().__init__()
        self.computed: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function == Tensor.to and _target(args) == "cuda":
            like = args[1] if isinstance(args[1], Tensor) else args[0]
            return args[0].to(like.dtype).as_subclass(OnGPU)
        if any(issubclass(kind, OnGPU) for kind in types):
            self.computed.add(function.__name__)
        return function(*args, **kwargs or {})


def _target(args) -> str | None:
    """The type of the device in ``.to(device)`` or ``.to(tensor)``."""
    device = getattr(args[1], "device", args[1])
    return device.type if isinstance(device, torch.device) else None
