# TransFuser whose LiDAR branch reads 64 learned channels of 0.25 m pillars; see docs/mmdet3d.md
_base_ = "./transfuser_r34.py"

model = dict(
    backbone=dict(
        type="PillarTransFuserBackbone",
        pillars=dict(
            point_range=(-32.0, -32.0, -2.0, 32.0, 32.0, 6.0),
            feat_channels=(64,),
            max_points=20,
        ),
    )
)
