# LTF as in NAVSIM v1.1: TransFuser with a learned latent instead of LiDAR.
_base_ = "./transfuser_r34.py"

model = dict(
    backbone=dict(latent=True),
    # Agents outside the three front cameras' view (80 degrees to either side) are no targets.
    agent_head=dict(loss=dict(max_bearing=1.3962634015954636)),
)
