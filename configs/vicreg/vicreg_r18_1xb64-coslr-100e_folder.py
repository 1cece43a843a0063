_base_ = "../_base_/small_folder.py"

model = dict(
    type="VICReg",
    backbone=dict(type="ResNet", depth=18),
    head=dict(
        type="GlobalHead", hidden_channels=(1024, 1024), out_channels=1024, norm=True, bias=False
    ),
    loss=dict(type="VICRegLoss", sim_weight=25, var_weight=25, cov_weight=1),
)
train_dataloader = dict(dataset=dict(transform=dict(views=["byol_1", "byol_2"])))
