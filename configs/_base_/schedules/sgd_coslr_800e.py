_base_ = "./sgd_coslr_200e.py"

optim_wrapper = dict(optimizer=dict(lr=0.3))
param_scheduler = dict(T_max=800)
train_cfg = dict(max_epochs=800)
