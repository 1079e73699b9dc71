# TransFuser as in NAVSIM v1.1 (MODELS, sections 3 and 10). 64 scenes per process; how many processes is not
# published.
_base_ = [
    "../_base_/models/transfuser_r34.py",
    "../_base_/datasets/navsim_lidar.py",
    "../_base_/schedules/adam_100e.py",
    "../_base_/runtime/default.py",
]
train_dataloader = dict(batch_size=64)
