_base_ = "./mocov2_r50_8xb32-coslr-200e_in1k.py"

model = dict(head=dict(hidden_channels=()), temperature=0.07)
train_dataloader = dict(dataset=dict(transform=dict(views=["moco_v1", "moco_v1"])))
param_scheduler = dict(_delete_=True, type="MultiStepLR", milestones=[120, 160], gamma=0.1)
