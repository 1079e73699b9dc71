# DiffusionDrive: truncated diffusion from 20 anchors on the TransFuser encoder.
model = dict(
    type="DiffusionDrivePlanner",
    backbone=dict(
        image_encoder=dict(type="StagedResNet", name="resnet34", pretrained=True),
        bev_encoder=dict(name="resnet34"),
    ),
    decoder=dict(dim=256, num_queries=31, num_layers=3, num_heads=8, ffn_dim=1024),
    trajectory_head=dict(
        type="TruncatedDiffusionHead",
        num_anchors=20,
        bev_size=(8, 8),
        bev_channels=64,
        denoiser=dict(dim=256, num_layers=2, num_heads=8, ffn_dim=1024, time_dim=1024, dropout=0.1),
        steps=2,
        regression_weight=12.0 * 8.0,
        mode_weight=12.0 * 10.0,
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
        loss=dict(type="BEVSemanticLoss", weight=14.0),
    ),
)
