# MeanFuser: mean flow from a mixture of 8 Gaussians and adaptive reconstruction on the LTF encoder.
model = dict(
    type="MeanFuserPlanner",
    backbone=dict(
        latent=True,
        lidar_channels=4,
        image_encoder=dict(type="StagedResNet", name="resnet34", pretrained=True),
        bev_encoder=dict(name="resnet34"),
    ),
    decoder=dict(dim=128, num_queries=31, num_layers=3, num_heads=8, ffn_dim=1024),
    trajectory_head=dict(
        type="MeanFlowHead",
        dim=128,
        num_context=30,
        map_size=(32, 32),
        map_stride=2,
        bev_size=(8, 8),
        bev_channels=64,
        denoiser=dict(num_layers=1, num_heads=8, ffn_dim=1024),
        reconstruction=dict(hidden=256, num_layers=3, num_heads=8, ffn_dim=1024),
        num_components=8,
        num_proposals=8,
        steps=1,
        flow_weight=7.0,
        arm_weight=2.0,
    ),
    bev_head=dict(
        type="BEVSemanticHead",
        in_channels=64,
        map_size=(128, 256),
        loss=dict(type="BEVSemanticLoss", weight=1.0),
    ),
)
