# TransFuser on pillars for two CPU cores, on the generated world; needs mmdet3d, see docs/mmdet3d.md
_base_ = [
    "../_base_/models/transfuser-pillars_tiny.py",
    "../_base_/datasets/synth_points.py",
    "../_base_/schedules/adamw_12e.py",
    "../_base_/runtime/default.py",
]
