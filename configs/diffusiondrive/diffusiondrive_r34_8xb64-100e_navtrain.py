# DiffusionDrive; 88.1 PDMS on navtest as published (METHOD, section 5), in mixed precision (MODELS,
# section 10).
_base_ = [
    "../_base_/models/diffusiondrive_r34.py",
    "../_base_/datasets/navsim_lidar.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(type="AmpOptimWrapper", optimizer=dict(lr=6e-4, weight_decay=1e-4), clip_grad=None)
param_scheduler = dict(eta_min=1e-6)
auto_scale_lr = dict(base_batch_size=512)
