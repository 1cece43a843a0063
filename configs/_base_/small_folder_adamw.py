# The small recipe for losses that are sums over channels: steps that do not grow with the loss.
_base_ = "./small_folder.py"

optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=0.002, weight_decay=1e-4))
