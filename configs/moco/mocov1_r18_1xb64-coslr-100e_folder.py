_base_ = "./mocov2_r18_1xb64-coslr-100e_folder.py"

model = dict(head=dict(hidden_channels=()), temperature=0.07)
train_dataloader = dict(dataset=dict(transform=dict(views=["moco_v1", "moco_v1"])))
