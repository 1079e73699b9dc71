# Vocabulary planner of the Hydra-MDP kind; the schedule of WoTE. Its vocabulary and the scores are made by:
#     python tools/build_vocabulary.py CONFIG train --size 4096 --out data/navsim/vocabularies/plans_4096.npz
#     python tools/score_vocabulary.py CONFIG train data/navsim/vocabularies/plans_4096.npz \
#         --out data/navsim/vocabularies/scores_4096/navtrain_train --num-workers 32
_base_ = [
    "../_base_/models/hydra_mdp_r34.py",
    "../_base_/datasets/navsim_lidar.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]
vocabulary = "data/navsim/vocabularies/plans_4096.npz"
vocabulary_scores = "data/navsim/vocabularies/scores_4096/navtrain_train"
model = dict(trajectory_head=dict(vocabulary=vocabulary))
train_cfg = dict(max_epochs=30)
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=1e-4), clip_grad=None)
param_scheduler = dict(eta_min=1e-6, end=100)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        pipeline=[
            dict(
                type="LoadVocabularyScores",
                store=vocabulary_scores,
                vocabulary=vocabulary,
                split="trainval",
            ),
            dict(type="PackPlanInputs"),
        ]
    ),
)
