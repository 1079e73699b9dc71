# FlowPolicy: flow matching in delta space on the LTF encoder.
model = dict(
    type="FlowPolicy",
    backbone=dict(
        latent=True,
        image_encoder=dict(type="StagedResNet", name="resnet34", pretrained=True),
        bev_encoder=dict(name="resnet34"),
    ),
    decoder=dict(dim=256, num_queries=31, num_layers=3, num_heads=8, ffn_dim=1024),
    trajectory_head=dict(
        type="FlowHead",
        denoiser=dict(dim=256, num_context=30, num_layers=1, num_heads=8, ffn_dim=1024),
        prediction="x",
        flow_weight=50.0,
        noise=0.2,
        drop_probability=0.1,
        num_proposals=1,
        steps=5,
        guidance=1.0,
    ),
    bev_head=dict(
        type="BEVSemanticHead",
        in_channels=64,
        map_size=(128, 256),
        loss=dict(type="BEVSemanticLoss", weight=1.0),
    ),
)
