_base_ = "../_base_/small_folder_warmup.py"

# A short training has few steps: the teacher follows faster. On the few cells of small views the
# dense embeddings would hold their place alone, were the negatives means.
model = dict(
    type="DenseCL",
    backbone=dict(type="ResNet", depth=18),
    head=dict(type="GlobalHead", hidden_channels=(2048,), out_channels=128),
    dense_head=dict(type="DenseHead", hidden_channels=(2048,), out_channels=128),
    temperature=0.2,
    momentum=0.99,
    loss_lambda=0.5,
    dense_negatives="cells",
)
