# Ego-status MLP as in NAVSIM v1.1: three hidden layers of 512, absolute poses, L1 of weight 1.
model = dict(
    type="EgoStatusMLP",
    hidden=512,
    num_layers=3,
    trajectory_head=dict(
        type="AbsoluteTrajectoryHead",
        hidden=None,
        bounded_heading=False,
        loss=dict(type="PlanL1Loss", weight=1.0),
    ),
)
