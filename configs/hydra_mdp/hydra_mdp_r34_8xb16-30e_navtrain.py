# Vocabulary planner of the Hydra-MDP kind; the recipe of WoTE. Its vocabulary and the scores are made by:
#   beyonddrive build-vocabulary CONFIG train --size 4096 --out data/cache/navsim/vocabularies/plans_4096.npz
#   beyonddrive score-vocabulary CONFIG train data/cache/navsim/vocabularies/plans_4096.npz \
#       --out data/cache/navsim/vocabularies/scores_4096/navtrain_train --num-workers 32
_base_ = [
    "../_base_/models/hydra_mdp_r34.py",
    "../_base_/datasets/navsim_lidar.py",
    "../_base_/datasets/vocabulary_scores.py",
    "../_base_/schedules/adamw_30e.py",
    "../_base_/runtime/default.py",
]
vocabulary = "${cache_root}/vocabularies/plans_4096.npz"
vocabulary_scores = "${cache_root}/vocabularies/scores_4096/navtrain_train"
train_dataloader = dict(batch_size=16)
model = dict(trajectory_head=dict(vocabulary="${vocabulary}"))
