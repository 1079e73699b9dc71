# TransFuser for two CPU cores: ltf_tiny with a LiDAR raster of 128 x 128 cells, absolute poses and agents.
_base_ = "./ltf_tiny.py"

model = dict(
    backbone=dict(latent=False),
    trajectory_head=dict(type="AbsoluteTrajectoryHead", activation="ReLU"),
    agent_head=dict(loss=dict(class_weight=10.0, box_weight=1.0)),
)
