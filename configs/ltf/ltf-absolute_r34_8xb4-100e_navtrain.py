# LTF* in absolute poses: what delta space adds can be measured against it.
_base_ = [
    "../_base_/models/ltf-absolute_r34.py",
    "../_base_/datasets/navsim.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]
