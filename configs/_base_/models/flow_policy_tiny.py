# FlowPolicy for two CPU cores: the encoder of ltf_tiny.
_encoder = dict(
    name="resnet18", layers=(1, 1, 1, 1), channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
)
model = dict(
    type="FlowPolicy",
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
        type="FlowHead",
        denoiser=dict(dim=64, num_context=30, num_layers=2, num_heads=4, ffn_dim=256),
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
        in_channels=16,
        map_size=(32, 64),
        loss=dict(type="BEVSemanticLoss", weight=1.0, target_stride=4),
    ),
)
