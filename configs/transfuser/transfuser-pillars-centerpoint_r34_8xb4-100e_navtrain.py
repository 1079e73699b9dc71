# TransFuser on pillars with CenterHead beside it, schedule of LTF*; needs mmdet3d, see docs/mmdet3d.md
_base_ = [
    "../_base_/models/transfuser-pillars-centerpoint_r34.py",
    "../_base_/datasets/navsim_boxes.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]
