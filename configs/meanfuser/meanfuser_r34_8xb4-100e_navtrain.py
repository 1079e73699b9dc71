# MeanFuser; 89.0 PDMS on navtest as published (METHOD, section 5).
_base_ = [
    "../_base_/models/meanfuser_r34.py",
    "../_base_/datasets/navsim.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]
