# LTF*: LTF in delta space, without agent terms; the planner that BeyondDrive turns into LTFv7.
_base_ = "./ltf_r34.py"

model = dict(
    trajectory_head=dict(
        _delete_=True,
        type="DeltaTrajectoryHead",
        in_channels=256,
        hidden=256,
        loss=dict(type="PlanL1Loss", weight=10.0),
    ),
    agent_head=dict(loss=dict(class_weight=0.0, box_weight=0.0)),
    bev_head=dict(loss=dict(weight=1.0)),
)
