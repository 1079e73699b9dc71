# MeanFuser for two CPU cores, on the generated world.
_base_ = [
    "../_base_/models/meanfuser_tiny.py",
    "../_base_/datasets/synth.py",
    "../_base_/schedules/adamw_12e.py",
    "../_base_/runtime/default.py",
]
