"""The parts of a training, built from its config as training builds them, without its runner."""

import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from PIL import Image

from densessl.datasets import collate_views
from densessl.engine.compiling import compile_networks
from densessl.engine.config import load_config, set_runtime_defaults
from densessl.models.methods.base import Method
from densessl.registry import DATASETS, MODELS, TRANSFORMS
from densessl.structures import SampleKey, ViewBatch

NUM_IMAGES = 1_281_167  # ImageNet's: what a queue that is sized from the data is sized for
DISTINCT = 64  # synthetic images that are augmented for themselves; larger batches repeat them


class Prepared(BaseDataPreprocessor):
    """Hands on views that are augmented already."""

    def forward(self, data: ViewBatch, training: bool = False) -> dict:
        return dict(batch=self.cast_data(data))


def recipe(
    config: str | Path,
    images: str | None = None,
    precision: str | None = None,
    options: dict[str, Any] | None = None,
) -> Config:
    """A config as ``pretrain`` would train it; arguments as there."""
    cfg = load_config(config, options, images, precision)
    set_runtime_defaults(cfg)
    return cfg


def our_scope() -> AbstractContextManager:
    """Makes names ours that mmengine looks up, whatever ran before in the process."""
    return DefaultScope.overwrite_default_scope("densessl")


def build_dataset(cfg: Config):
    """The data set of ``cfg``."""
    return DATASETS.build(cfg.train_dataloader.dataset)


def choose_kernels(cfg: Config) -> None:
    """Lets cuDNN try out its convolutions where training with ``cfg`` does."""
    torch.backends.cudnn.benchmark = bool((cfg.get("env_cfg") or {}).get("cudnn_benchmark"))


def build_method(cfg: Config, device: torch.device) -> Method:
    """The method of ``cfg`` on ``device``, compiled if the config says so."""
    choose_kernels(cfg)
    model = MODELS.get(cfg.model.type).resolve(cfg.model, NUM_IMAGES)
    method = MODELS.build(model).to(device, memory_format=torch.channels_last).train()
    compile_networks(method, cfg.get("compile"))
    return method


def build_backbone(cfg: Config, device: torch.device) -> torch.nn.Module:
    """The bare backbone of ``cfg``, compiled if the config says so."""
    choose_kernels(cfg)
    backbone = MODELS.build(cfg.model.backbone)
    backbone.to(device, memory_format=torch.channels_last).train()
    compile_networks(backbone, cfg.get("compile"))
    return backbone


def build_optimizer(cfg: Config, method: Method) -> OptimWrapper:
    """The optimizer wrapper of ``cfg``; ``method`` does not hear of its steps."""
    with our_scope():
        return build_optim_wrapper(method, cfg.optim_wrapper)


def images_per_step(cfg: Config) -> int:
    """Images of all micro-batches of one optimizer step, on one process."""
    return cfg.train_dataloader.batch_size * cfg.optim_wrapper.get("accumulative_counts", 1)


def synthetic_batch(cfg: Config) -> ViewBatch:
    """One step's views of noise images, as the data loader would give them."""
    transform = TRANSFORMS.build(cfg.train_dataloader.dataset.transform)
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((512, 384)).save(file, "jpeg")
    count = images_per_step(cfg)
    made = [transform(file.getvalue(), SampleKey(0, 0, i)) for i in range(min(count, DISTINCT))]
    repeated = [ViewBatch(*made[i % len(made)], i, -1) for i in range(count)]
    return collate_views(repeated)
