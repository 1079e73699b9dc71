# Ego-status MLP as in NAVSIM v1.1, in mixed precision (MODELS, sections 9 and 10).
_base_ = [
    "../_base_/models/ego_mlp.py",
    "../_base_/datasets/navsim.py",
    "../_base_/schedules/adam_50e.py",
    "../_base_/runtime/default.py",
]

_blind = [dict(type="PackPlanInputs", input_keys=("status",))]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=_blind))
val_dataloader = dict(dataset=dict(pipeline=_blind))
test_dataloader = dict(dataset=dict(pipeline=_blind))
