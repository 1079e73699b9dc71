# transfuser_tiny whose LiDAR branch reads 16 learned channels of 0.5 m pillars; see docs/mmdet3d.md
_base_ = "./transfuser_tiny.py"

model = dict(
    backbone=dict(
        type="PillarTransFuserBackbone",
        pillars=dict(
            point_range=(-32.0, -32.0, -2.0, 32.0, 32.0, 6.0),
            feat_channels=(16,),
            max_points=8,
        ),
    )
)
