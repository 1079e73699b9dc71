# The same vocabulary planner with BeyondDrive: its expected plan repelled from the hard negatives of a pool.
# The pool is made by tools/mine_negatives.py with configs/flow_policy/flow_policy_tiny_1xb16-12e_synth.py.
_base_ = ["./hydra_mdp_tiny_1xb16-12e_synth.py", "../_base_/negatives/published.py"]

pool_dir = "data/synth/pool/train"
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
                split="train",
                progress="pair",
            ),
            dict(
                type="LoadVocabularyScores",
                store={{_base_.vocabulary_scores}},
                vocabulary={{_base_.vocabulary}},
                split="train",
            ),
            dict(type="PackPlanInputs"),
        ]
    )
)
