# MeanFuser + BeyondDrive; 90.3 PDMS on navtest as published (METHOD, section 5).
# The pool is made by tools/mine_negatives.py with configs/flow_policy/flow_policy_r34_8xb4-100e_navtrain.py.
_base_ = ["./meanfuser_r34_8xb4-100e_navtrain.py", "../_base_/negatives/published.py"]

pool_dir = "data/pools/navtrain_train"
model = dict(
    trajectory_head=dict(
        _delete_=True,
        type="RepulsiveHead",
        head={{_base_.model.trajectory_head}},
        loss=dict(type="RepulsiveDistanceLoss", weight=1.5),
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
            dict(type="PackPlanInputs"),
        ]
    ),
)
