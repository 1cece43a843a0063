# The small recipe with AdamW, whose steps do not grow with losses that are sums over channels.
_base_ = "./small_folder.py"

optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=0.002, weight_decay=1e-4))
