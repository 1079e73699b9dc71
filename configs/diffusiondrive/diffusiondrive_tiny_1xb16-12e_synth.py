# DiffusionDrive for two CPU cores, on the generated world.
_base_ = [
    "../_base_/models/diffusiondrive_tiny.py",
    "../_base_/datasets/synth_lidar.py",
    "../_base_/schedules/adamw_12e.py",
    "../_base_/runtime/default.py",
]
