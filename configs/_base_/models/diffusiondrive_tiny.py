# DiffusionDrive for two CPU cores: the encoder of transfuser_tiny. Its anchors come from the experts of the
# training split (ExpertPriorHook), or from a vocabulary file: trajectory_head.anchors.
_base_ = "./transfuser_tiny.py"

model = dict(
    type="DiffusionDrivePlanner",
    trajectory_head=dict(
        _delete_=True,
        type="TruncatedDiffusionHead",
        num_anchors=20,
        bev_size=(4, 4),
        bev_channels=16,
        denoiser=dict(dim=64, num_layers=2, num_heads=4, ffn_dim=128, time_dim=128, dropout=0.0),
        steps=2,
        regression_weight=12.0 * 8.0,
        mode_weight=12.0 * 10.0,
    ),
    bev_head=dict(loss=dict(weight=14.0)),
)
