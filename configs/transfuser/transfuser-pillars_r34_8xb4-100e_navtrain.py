# TransFuser on pillars of the raw sweep, with the schedule of LTF*; needs mmdet3d, see docs/mmdet3d.md
_base_ = [
    "../_base_/models/transfuser-pillars_r34.py",
    "../_base_/datasets/navsim_points.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]
