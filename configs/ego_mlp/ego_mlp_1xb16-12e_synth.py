# Ego-status MLP on the generated world.
_base_ = [
    "../_base_/models/ego_mlp.py",
    "../_base_/datasets/synth.py",
    "../_base_/schedules/adamw_12e.py",
    "../_base_/runtime/default.py",
]

_blind = [dict(type="PackPlanInputs", input_keys=("status",))]
train_dataloader = dict(dataset=dict(pipeline=_blind))
val_dataloader = dict(dataset=dict(pipeline=_blind))
test_dataloader = dict(dataset=dict(pipeline=_blind))
