# LTF* for two CPU cores: narrow ResNets, 64 x 256 images, 128 x 128 latent, delta space.
_encoder = dict(
    name="resnet18", layers=(1, 1, 1, 1), channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
)
model = dict(
    type="TransFuserPlanner",
    backbone=dict(
        latent=True,
        image_encoder=_encoder,
        bev_encoder=_encoder,
        image_size=(64, 256),
        bev_size=(128, 128),
        num_layers=1,
        dropout=0.0,
        top_down_channels=16,
    ),
    decoder=dict(dim=64, num_queries=31, num_layers=2, num_heads=4, ffn_dim=128),
    trajectory_head=dict(
        type="DeltaTrajectoryHead",
        in_channels=64,
        hidden=64,
        loss=dict(type="PlanL1Loss", weight=10.0),
    ),
    agent_head=dict(
        type="AgentHead",
        in_channels=64,
        hidden=64,
        loss=dict(type="HungarianAgentLoss", class_weight=0.0, box_weight=0.0),
    ),
    bev_head=dict(
        type="BEVSemanticHead",
        in_channels=16,
        map_size=(32, 64),
        loss=dict(type="BEVSemanticLoss", weight=1.0, target_stride=4),
    ),
)
