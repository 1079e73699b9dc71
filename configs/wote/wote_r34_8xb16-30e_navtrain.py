# WoTE; 88.3 PDMS on navtest as published (METHOD, section 5). 30 epochs of a schedule made for 100
# (MODELS, section 10), in mixed precision. Its anchors and their scores are made by:
#     beyonddrive build-vocabulary CONFIG train --size 256 --out data/cache/navsim/vocabularies/plans_256.npz
#     beyonddrive score-vocabulary CONFIG train data/cache/navsim/vocabularies/plans_256.npz \
#         --out data/cache/navsim/vocabularies/scores_256/navtrain_train --num-workers 32
_base_ = [
    "../_base_/models/wote_r34.py",
    "../_base_/datasets/navsim_lidar_future.py",
    "../_base_/datasets/vocabulary_scores.py",
    "../_base_/schedules/adamw_30e.py",
    "../_base_/runtime/default.py",
]
vocabulary = "${cache_root}/vocabularies/plans_256.npz"
vocabulary_scores = "${cache_root}/vocabularies/scores_256/navtrain_train"
train_dataloader = dict(batch_size=16)
model = dict(trajectory_head=dict(anchors="${vocabulary}"))
