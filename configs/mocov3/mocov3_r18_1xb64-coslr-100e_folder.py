_base_ = "../_base_/small_folder.py"

# A short training has few steps: the teacher follows faster.
model = dict(
    type="MoCoV3",
    backbone=dict(type="ResNet", depth=18),
    head=dict(
        type="GlobalHead",
        hidden_channels=(1024,),
        out_channels=256,
        norm=True,
        last_norm="bn_no_affine",
        bias=False,
    ),
    predictor=dict(
        type="GlobalHead", hidden_channels=(1024,), out_channels=256, norm=True, bias=False
    ),
    temperature=0.2,
    momentum=0.98,
    end_momentum=1.0,
)
train_dataloader = dict(dataset=dict(transform=dict(views=["byol_1", "byol_2"])))
