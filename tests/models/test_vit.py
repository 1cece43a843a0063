"""MoCo v3's vision transformers."""

import math

import pytest
import timm
import torch

from densessl.engine.config import load_config
from densessl.engine.gradients import gradient_norms, layer_of
from densessl.errors import UserError
from densessl.models import BYOL, MoCoV3, TimmBackbone
from densessl.models.backbones.vit_start import sincos_positions
from densessl.registry import MODELS
from tests.models import checks
from tests.models.tiny import build, views

VIT = dict(name="vit_small_patch16_224", img_size=32, depth=2, embed_dim=48, num_heads=12)


def vit(side=32, **options):
    torch.manual_seed(0)
    backbone = TimmBackbone(**dict(VIT, img_size=side))
    return build(
        MoCoV3, checks.HEAD, checks.PREDICTOR, backbone=backbone, frozen_patches=True, **options
    )


def test_positions_are_sines_and_cosines_of_column_and_row():
    positions = sincos_positions(3, 5, 8)
    assert positions.shape == (1, 16, 8) and positions[0, 0].abs().max() == 0
    for row in range(3):
        for column in range(5):
            expected = [
                wave(place / 10000 ** (i / 2))
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for i in range(2)
            ]
            found = positions[0, 1 + row * 5 + column].tolist()
            assert found == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UserError, match="model.backbone.name"):
        sincos_positions(2, 2, 6)


def test_the_start_is_the_papers():
    model = vit().backbone.model
    assert model.blocks[0].attn.num_heads == 12
    bound = math.sqrt(6 / (3 * 16**2 + 48))
    assert bound * 0.99 < model.patch_embed.proj.weight.abs().max() <= bound
    assert model.patch_embed.proj.bias.abs().max() == 0
    qkv, fc1 = model.blocks[1].attn.qkv.weight, model.blocks[1].mlp.fc1.weight
    assert 0.99 * math.sqrt(6 / 96) < qkv.abs().max() <= math.sqrt(6 / 96)
    assert fc1.abs().max() <= math.sqrt(6 / (48 + 192))
    assert 0 < model.cls_token.abs().max() < 1e-5


def test_one_step_leaves_patches_and_positions_alone():
    method = vit(momentum=0.9)
    checks.assert_one_step(method, views(side=32), momentum=0.9)
    frozen = {name for name, p in method.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"model.pos_embed", "model.patch_embed.proj.weight"} | {
        "model.patch_embed.proj.bias"
    }


def test_the_class_token_represents_the_image():
    method, (one, _) = vit(), views(side=32).views
    token = method.backbone.model.forward_features(one)[:, 0]
    features, projection = method.encode(method, one)
    assert torch.allclose(projection, method.head(token), atol=1e-12)
    assert torch.allclose(features, method.backbone(one)[-1], atol=1e-12)


def test_a_last_norm_that_embeds_is_trained():
    """ConvNeXt's lies in the head, without which maps are made."""
    head = dict(type="GlobalHead", hidden_channels=(), out_channels=4)
    names = "model.head.norm.weight", "model.head.norm.bias"
    for kind, trained in ((MoCoV3, True), (BYOL, False)):
        method = kind(TimmBackbone("convnext_atto"), head, head)
        parameters = dict(method.backbone.named_parameters())
        assert [parameters[name].requires_grad for name in names] == [trained] * 2


def test_a_model_that_widens_what_it_pools():
    """MobileNetV3's last layer comes after the pooling."""
    backbone = TimmBackbone("mobilenetv3_small_050")
    assert backbone.embed_channels == 1024 != backbone.out_channels[-1]
    method = build(MoCoV3, checks.HEAD, checks.PREDICTOR, backbone=backbone)
    assert method.loss(views(side=32))["loss"].isfinite()


def test_timms_own_small_vit_differs_though_every_tensor_fits():
    """Six heads and twelve have the same state dict; only a forward comparison notices."""
    twelve, six = (
        timm.create_model("vit_small_patch16_224", img_size=32, depth=1, num_heads=n).eval()
        for n in (12, 6)
    )
    six.load_state_dict(twelve.state_dict())
    image = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(six(image), twelve(image), atol=1e-4)


@pytest.mark.slow
def test_the_recipe_takes_vit_b():
    options = {"name": "vit_base_patch16_224", "img_size": 32, "with_cp": True}
    cfg = load_config(
        "mocov3/mocov3_vit-small_16xb256-coslr-300e_in1k.py",
        {f"model.backbone.{name}": value for name, value in options.items()},
    )
    method = MODELS.build(cfg.model)
    assert method.backbone.out_channels == (768,) and method.backbone.model.num_prefix_tokens == 1
    batch = views(size=2, side=32)
    batch = batch._replace(views=tuple(view.float() for view in batch.views))
    method.loss(batch)["loss"].backward()
    assert method.backbone.model.blocks[0].attn.qkv.weight.grad.abs().max() > 0
    assert method.backbone.model.patch_embed.proj.weight.grad is None


def test_gradient_norms_are_those_of_the_layers():
    method = vit()
    method.loss(views(side=32))["loss"].backward()
    norms = gradient_norms(method.backbone)
    assert set(norms) == {"cls_token", "blocks.0", "blocks.1", "norm"}
    grads = [p.grad.flatten() for p in method.backbone.model.blocks[1].parameters()]
    assert norms["blocks.1"].item() == pytest.approx(torch.cat(grads).norm().item(), abs=1e-12)
    assert layer_of("layer2.1.bn1.weight") == "layer2.1" and layer_of("conv1.weight") == "conv1"


def test_bad_input():
    with pytest.raises(UserError, match="transform.size and model.backbone.img_size"):
        vit().loss(views(side=48))
    with pytest.raises(UserError, match="set model.backbone.img_size to a multiple"):
        vit(side=40)
    with pytest.raises(UserError, match="model.frozen_patches"):
        build(MoCoV3, checks.HEAD, checks.PREDICTOR, frozen_patches=True)


@pytest.mark.slow
def test_twenty_steps_repeat_the_golden_losses():
    checks.assert_golden(
        "mocov3_vit",
        vit(temperature=0.2),
        batches=lambda step: views(size=8, side=32, seed=step),
    )
