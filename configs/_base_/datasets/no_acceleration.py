# Planners that are not told their acceleration: in training, validation, test, mining and behind a simulator.
_pipeline = [dict(type="HideStatus", parts=("acceleration",)), dict(type="PackPlanInputs")]

train_dataloader = dict(dataset=dict(pipeline=_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_pipeline))
