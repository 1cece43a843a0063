default_scope = "densessl"
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork"))
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=10),
    checkpoint=dict(type="CheckpointHook", interval=10, max_keep_ckpts=3, save_last=True),
)
# Every figure is a mean over the last ten steps, not the last value.
log_processor = dict(window_size=10, mean_pattern=r"^(?!.*lr)")
randomness = dict(seed=0)
