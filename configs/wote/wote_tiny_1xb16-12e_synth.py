# WoTE for two CPU cores, on the generated world. Its anchors and their scores are made by:
#     beyonddrive build-vocabulary CONFIG train --size 32 --out data/synth/vocabularies/plans_32.npz
#     beyonddrive score-vocabulary CONFIG train data/synth/vocabularies/plans_32.npz \
#         --out data/synth/vocabularies/scores_32/train
_base_ = [
    "../_base_/models/wote_tiny.py",
    "../_base_/datasets/synth_lidar_future.py",
    "../_base_/datasets/vocabulary_scores.py",
    "../_base_/schedules/adamw_12e.py",
    "../_base_/runtime/default.py",
]
vocabulary = "${data_root}/vocabularies/plans_32.npz"
vocabulary_scores = "${data_root}/vocabularies/scores_32/train"
model = dict(trajectory_head=dict(anchors="${vocabulary}"))
