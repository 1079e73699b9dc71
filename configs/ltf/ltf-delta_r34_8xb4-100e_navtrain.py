# LTF*: LTF in delta space; 88.7 PDMS on navtest as published (METHOD, section 5).
_base_ = [
    "../_base_/models/ltf-delta_r34.py",
    "../_base_/datasets/navsim.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]
