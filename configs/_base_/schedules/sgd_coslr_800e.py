_base_ = "./sgd_coslr_200e.py"

optim_wrapper = dict(optimizer=dict(lr=0.3))
train_cfg = dict(max_epochs=800)
