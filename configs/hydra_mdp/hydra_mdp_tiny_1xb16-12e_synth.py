# Vocabulary planner for two CPU cores, on the generated world. Its vocabulary and the scores are made by:
#     beyonddrive build-vocabulary CONFIG train --size 64 --out data/synth/vocabularies/plans_64.npz
#     beyonddrive score-vocabulary CONFIG train data/synth/vocabularies/plans_64.npz \
#         --out data/synth/vocabularies/scores_64/train
_base_ = [
    "../_base_/models/hydra_mdp_tiny.py",
    "../_base_/datasets/synth.py",
    "../_base_/datasets/vocabulary_scores.py",
    "../_base_/schedules/adamw_12e.py",
    "../_base_/runtime/default.py",
]
vocabulary = "${data_root}/vocabularies/plans_64.npz"
vocabulary_scores = "${data_root}/vocabularies/scores_64/train"
model = dict(trajectory_head=dict(vocabulary="${vocabulary}"))
