# TransFuser on pillars with CenterHead beside it, for two CPU cores; needs mmdet3d, see docs/mmdet3d.md
_base_ = [
    "../_base_/models/transfuser-pillars-centerpoint_tiny.py",
    "../_base_/datasets/synth_boxes.py",
    "../_base_/schedules/adamw_12e.py",
    "../_base_/runtime/default.py",
]
