# WoTE as published: camera and LiDAR, ResNet-34, 256 anchors.
# Anchors, below cache_root:
#   beyonddrive build-vocabulary CONFIG train --size 256 --out data/cache/navsim/vocabularies/plans_256.npz
model = dict(
    type="WoTE",
    backbone=dict(
        image_encoder=dict(type="StagedResNet", name="resnet34", pretrained=True),
        bev_encoder=dict(name="resnet34"),
        top_down=False,
    ),
    decoder=dict(type="BEVTokenizer", dim=256, map_size=(64, 64), map_channels=64),
    trajectory_head=dict(
        type="WorldModelHead",
        num_anchors=256,
        dim=256,
        bev_size=(8, 8),
        num_heads=8,
        encoder=dict(hidden=128, num_layers=2, ffn_dim=512),
        offset_layers=3,
        offset_ffn_dim=1024,
        offset_hidden=1024,
        world_model=dict(num_layers=2, ffn_dim=512),
        reward_hidden=128,
        imitation_weight=0.1,
        loss=dict(
            type="WorldModelLoss",
            offset_weight=1.0,
            imitation_weight=1.0,
            offset_imitation_weight=0.1,
            metric_weight=5.0,
        ),
    ),
    # As published, agents are predicted but their loss has no weight.
    agent_head=dict(
        type="DecodedAgentHead",
        in_channels=256,
        hidden=1024,
        num_layers=3,
        num_heads=8,
        ffn_dim=1024,
        loss=dict(type="HungarianAgentLoss", class_weight=0.0, box_weight=0.0),
    ),
    bev_head=dict(
        type="BEVSemanticHead",
        in_channels=64,
        num_classes=8,
        map_size=(128, 256),
        loss=dict(type="BEVFocalLoss", weight=10.0, alpha=0.5, gamma=2.0),
    ),
    future_map_weight=0.1,
)
