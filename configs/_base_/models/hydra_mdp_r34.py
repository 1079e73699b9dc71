# Vocabulary planner of the Hydra-MDP kind: the encoder and auxiliary heads of TransFuser, 4096 plans.
# Below cache_root:
#   beyonddrive build-vocabulary CONFIG train --size 4096 --out data/cache/navsim/vocabularies/plans_4096.npz
_base_ = "./transfuser_r34.py"

model = dict(
    type="VocabularyPlanner",
    trajectory_head=dict(
        _delete_=True,
        type="VocabularyHead",
        size=4096,
        in_channels=256,
        mixing_layers=1,
        num_layers=2,
        num_heads=8,
        ffn_dim=1024,
        hidden=256,
        loss=dict(type="VocabularyLoss"),
    ),
)
