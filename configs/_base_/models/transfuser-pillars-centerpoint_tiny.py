# transfuser-pillars_tiny with SECOND and its neck behind the pillars, and CenterHead on their map: 1 m cells,
# one task for all classes (a third of the convolutions of a task for each).
_base_ = "./transfuser-pillars_tiny.py"

model = dict(
    backbone=dict(
        bev_size=(64, 64),
        top_down_stride=2,
        pillars=dict(
            grid_size=(128, 128),
            # Above the ground: most points are flat road, which says nothing and costs most of the pillars.
            point_range=(-32.0, -32.0, 0.2, 32.0, 32.0, 6.0),
            backbone=dict(out_channels=[16, 32], layer_nums=[1, 1], layer_strides=[2, 2]),
            neck=dict(out_channels=[16, 16], upsample_strides=[1, 2]),
        ),
    ),
    detection_head=dict(
        type="CenterPointHead",
        in_channels=32,
        map_size=(64, 64),
        max_boxes=60,
        head=dict(
            tasks=[dict(num_class=3, class_names=["vehicle", "pedestrian", "bicycle"])],
            share_conv_channel=16,
            separate_head=dict(head_conv=8),
            train_cfg=dict(min_radius=1),
        ),
    ),
)
