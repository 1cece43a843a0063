# The small recipe: a folder of your own, 112 px, 64 images a step, 100 epochs on a CPU or one GPU.
# tools/train.py CONFIG --images DIR
_base_ = [
    "./schedules/sgd_coslr_200e.py",
    "./default_runtime.py",
]

# Two MoCo v2 views of each image.
train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(
        type="ImageFolder",
        root="data/images",
        transform=dict(type="MultiView", size=112, views=["moco_v2", "moco_v2"]),
    ),
)

# In hundreds of steps AdamW does the same for losses of every scale; SGD at the published rates
# leaves some networks worse for fine-tuning than it found them.
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=0.004, weight_decay=0.05))
train_cfg = dict(max_epochs=100)
