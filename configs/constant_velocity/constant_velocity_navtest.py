# Constant velocity; nothing to train.
_base_ = [
    "../_base_/models/constant_velocity.py",
    "../_base_/datasets/navsim_status.py",
    "../_base_/schedules/test_only.py",
    "../_base_/runtime/default.py",
]
