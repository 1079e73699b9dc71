# Control of LiDAR: a sweep without a single point in every scene, in training, validation and test, for planners that
# read points. Targets keep what the sweep says of the agents, so the same ones count in average precision.
_blind = dict(pipeline=[dict(type="BlankInputs", keys=("points",)), dict(type="PackPlanInputs")])

train_dataloader = dict(dataset=_blind)
val_dataloader = dict(dataset=_blind)
test_dataloader = dict(dataset=_blind)
