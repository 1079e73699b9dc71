# TransFuser as in NAVSIM v1.1: camera and LiDAR, ResNet-34, absolute poses.
model = dict(
    type="TransFuserPlanner",
    backbone=dict(
        image_encoder=dict(type="StagedResNet", name="resnet34", pretrained=True),
        bev_encoder=dict(name="resnet34"),
    ),
    decoder=dict(dim=256, num_queries=31, num_layers=3, num_heads=8, ffn_dim=1024),
    trajectory_head=dict(
        type="AbsoluteTrajectoryHead",
        in_channels=256,
        hidden=1024,
        activation="ReLU",
        loss=dict(type="PlanL1Loss", weight=10.0),
    ),
    agent_head=dict(
        type="AgentHead",
        in_channels=256,
        hidden=1024,
        loss=dict(type="HungarianAgentLoss", class_weight=10.0, box_weight=1.0),
    ),
    bev_head=dict(
        type="BEVSemanticHead",
        in_channels=64,
        map_size=(128, 256),
        loss=dict(type="BEVSemanticLoss", weight=10.0),
    ),
)
