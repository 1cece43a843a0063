# ViT-B: --cfg-options model.backbone.name=vit_base_patch16_224
_base_ = [
    "../_base_/datasets/imagenet_mocov2.py",
    "../_base_/schedules/lars_warmup_coslr_1000e.py",
    "../_base_/default_runtime.py",
]

_head = dict(type="GlobalHead", out_channels=256, norm=True, last_norm="bn_no_affine", bias=False)
model = dict(
    type="MoCoV3",
    # timm's vit_small has six heads; the paper's has twelve.
    backbone=dict(type="TimmBackbone", name="vit_small_patch16_224", num_heads=12),
    head=dict(hidden_channels=(4096, 4096), **_head),
    predictor=dict(hidden_channels=(4096,), **_head),
    temperature=0.2,
    momentum=0.99,
    end_momentum=1.0,
    frozen_patches=True,
)
train_dataloader = dict(batch_size=256, dataset=dict(transform=dict(views=["byol_1", "byol_2"])))
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1.5e-4, weight_decay=0.1))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, end=40, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min_ratio=0, begin=40, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=300)
custom_hooks = [dict(type="GradientNormHook")]
