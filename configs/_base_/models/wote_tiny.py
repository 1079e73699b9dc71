# WoTE for two CPU cores: narrow ResNets, 64 x 256 images, 32 anchors, a map of 4 x 4 tokens.
# Anchors: beyonddrive build-vocabulary CONFIG train --size 32 --out data/synth/vocabularies/plans_32.npz
_encoder = dict(
    name="resnet18", layers=(1, 1, 1, 1), channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
)
model = dict(
    type="WoTE",
    backbone=dict(
        image_encoder=_encoder,
        bev_encoder=_encoder,
        image_size=(64, 256),
        bev_size=(128, 128),
        num_layers=1,
        dropout=0.0,
        top_down=False,
    ),
    decoder=dict(type="BEVTokenizer", dim=64, map_size=(32, 32), map_channels=16),
    trajectory_head=dict(
        type="WorldModelHead",
        num_anchors=32,
        dim=64,
        bev_size=(4, 4),
        num_heads=4,
        encoder=dict(hidden=64, num_layers=1, ffn_dim=128),
        offset_layers=2,
        offset_ffn_dim=128,
        offset_hidden=64,
        world_model=dict(num_layers=1, ffn_dim=128),
        reward_hidden=32,
        loss=dict(type="WorldModelLoss"),
    ),
    agent_head=dict(
        type="DecodedAgentHead",
        in_channels=64,
        hidden=64,
        num_layers=1,
        num_heads=4,
        ffn_dim=128,
        loss=dict(type="HungarianAgentLoss", class_weight=0.0, box_weight=0.0),
    ),
    bev_head=dict(
        type="BEVSemanticHead",
        in_channels=16,
        num_classes=8,
        map_size=(32, 64),
        loss=dict(type="BEVFocalLoss", weight=10.0, target_stride=4),
    ),
    future_map_weight=0.1,
)
