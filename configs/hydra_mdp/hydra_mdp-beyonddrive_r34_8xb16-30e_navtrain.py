# The vocabulary planner with BeyondDrive: its expected plan repelled from the hard negatives of a pool.
# The pool is made by tools/mine_negatives.py with configs/flow_policy/flow_policy_r34_8xb4-100e_navtrain.py.
_base_ = ["./hydra_mdp_r34_8xb16-30e_navtrain.py", "../_base_/negatives/published.py"]

pool_dir = "data/pools/navtrain_train"
model = dict(
    trajectory_head=dict(
        _delete_=True,
        type="RepulsiveHead",
        head={{_base_.model.trajectory_head}},
        loss=dict(type="RepulsiveDistanceLoss", weight=0.5),
    )
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type="LoadNegatives",
                pool=pool_dir,
                selection={{_base_.negative_selection}},
                split="trainval",
                progress="pair",
            ),
            dict(
                type="LoadVocabularyScores",
                store={{_base_.vocabulary_scores}},
                vocabulary={{_base_.vocabulary}},
                split="trainval",
            ),
            dict(type="PackPlanInputs"),
        ]
    )
)
