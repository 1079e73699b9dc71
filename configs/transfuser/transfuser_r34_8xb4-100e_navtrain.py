# TransFuser as in NAVSIM v1.1, with the schedule of LTF*.
_base_ = [
    "../_base_/models/transfuser_r34.py",
    "../_base_/datasets/navsim_lidar.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]
