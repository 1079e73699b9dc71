# LTF* without delta space: absolute poses, everything else as in LTF*.
_base_ = "./ltf-delta_r34.py"

model = dict(
    trajectory_head=dict(
        _delete_=True,
        type="AbsoluteTrajectoryHead",
        in_channels=256,
        hidden=256,
        activation="SiLU",
        loss=dict(type="PlanL1Loss", weight=10.0),
    )
)
