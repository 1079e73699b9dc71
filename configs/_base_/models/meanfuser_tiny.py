# MeanFuser for two CPU cores: the encoder of ltf_tiny. Its mixture comes from the experts of the training
# split (ExpertPriorHook), or from a vocabulary file: trajectory_head.mixture.
_base_ = "./ltf_tiny.py"

model = dict(
    type="MeanFuserPlanner",
    trajectory_head=dict(
        _delete_=True,
        type="MeanFlowHead",
        dim=64,
        num_context=30,
        map_size=(16, 16),
        map_stride=2,
        bev_size=(4, 4),
        bev_channels=16,
        denoiser=dict(num_layers=1, num_heads=4, ffn_dim=128),
        reconstruction=dict(hidden=128, num_layers=2, num_heads=4, ffn_dim=128),
        num_components=8,
        num_proposals=8,
        steps=1,
        flow_weight=7.0,
        arm_weight=2.0,
    ),
    agent_head=None,
)
