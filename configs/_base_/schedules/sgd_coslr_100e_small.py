_base_ = "./sgd_coslr_200e.py"

# Small data wants more steps than batches: a higher rate for the few there are.
optim_wrapper = dict(optimizer=dict(lr=0.12))
train_cfg = dict(max_epochs=100)
