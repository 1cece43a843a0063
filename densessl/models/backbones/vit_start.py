"""How MoCo v3 starts a vision transformer, and what it freezes."""

import math

import torch
from torch import Tensor, nn

from densessl.errors import UserError


def sincos_positions(rows: int, columns: int, dim: int, temperature: float = 10000.0) -> Tensor:
    """Fixed 2-D positions: a quarter of the channels each for sin and cos of x and of y.

    Returns:
        (1, 1 + rows * columns, dim), row-major; the class token's, first, is 0.

    Raises:
        UserError: If the channels do not divide by four.
    """
    if dim % 4:
        raise UserError(
            f"Sin-cos positions need channels in fours; this transformer has {dim}.",
            "choose another model.backbone.name",
        )
    frequencies = temperature ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (x, y)]
    positions = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)
    return torch.cat([torch.zeros(1, dim), positions.float()])[None]


@torch.no_grad()
def start_vit(model: nn.Module) -> None:
    """Initialises timm's vision transformer as MoCo v3 does.

    Fixed sin-cos positions; a patch projection that stays at its random start, without which
    gradients spike in the first layer and spoil training; Xavier-uniform layers with query, key and
    value each for themselves; a class token near 0.

    Args:
        model: A timm ``VisionTransformer`` with one class token; changed in place.

    Raises:
        UserError: If it is none.

    Source: MoCo v3 (2104.02057), section 4 and appendix A.
    """
    if not hasattr(model, "blocks") or getattr(model, "cls_token", None) is None:
        raise UserError(
            f"model.frozen_patches is for vision transformers, not for {type(model).__name__}.",
            "set model.frozen_patches to False, or model.backbone.name to vit_small_patch16_224 "
            "or vit_base_patch16_224",
        )
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            fan_out = layer.out_features // (3 if name.endswith("qkv") else 1)
            bound = math.sqrt(6 / (layer.in_features + fan_out))
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
    nn.init.normal_(model.cls_token, std=1e-6)

    projection = model.patch_embed.proj
    fan_in, dim = projection.weight[0].numel(), projection.out_channels
    bound = math.sqrt(6 / (fan_in + dim))
    nn.init.uniform_(projection.weight, -bound, bound)
    nn.init.zeros_(projection.bias)
    projection.requires_grad_(False)

    model.pos_embed.copy_(sincos_positions(*model.patch_embed.grid_size, dim))
    model.pos_embed.requires_grad_(False)
