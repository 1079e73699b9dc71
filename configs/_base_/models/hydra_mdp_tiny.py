# Vocabulary planner for two CPU cores: the encoder of ltf_tiny, 64 plans.
# Vocabulary: beyonddrive build-vocabulary CONFIG train --size 64 --out data/synth/vocabularies/plans_64.npz
_base_ = "./ltf_tiny.py"

model = dict(
    type="VocabularyPlanner",
    trajectory_head=dict(
        _delete_=True,
        type="VocabularyHead",
        size=64,
        in_channels=64,
        mixing_layers=1,
        num_layers=2,
        num_heads=4,
        ffn_dim=128,
        hidden=64,
        num_proposals=16,
        loss=dict(type="VocabularyLoss"),
    ),
)
