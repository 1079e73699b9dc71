# transfuser-pillars_r34 with SECOND and its neck behind the pillars, CenterHead on their map: 0.25 m cells.
_base_ = "./transfuser-pillars_r34.py"

model = dict(
    backbone=dict(
        pillars=dict(
            backbone=dict(out_channels=[64, 128, 256], layer_nums=[3, 5, 5], layer_strides=[1, 2, 2]),
            neck=dict(out_channels=[64, 64, 64], upsample_strides=[1, 2, 4]),
        ),
    ),
    detection_head=dict(type="CenterPointHead", in_channels=192, map_size=(256, 256)),
)
