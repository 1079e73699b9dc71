# LTF as in NAVSIM v1.1: TransFuser with a learned latent instead of LiDAR.
_base_ = "./transfuser_r34.py"

# (mmengine takes a config that imports before it names its bases for one of another style)
import beyonddrive.losses.agents as _agents  # noqa: E402

model = dict(
    backbone=dict(latent=True),
    # Agents outside the three front cameras' view (80 degrees to either side) are no targets.
    agent_head=dict(loss=dict(max_bearing=_agents.CAMERA_FIELD_OF_VIEW)),
)
