# Control of LiDAR for planners that read points: in training, validation and test every cloud is empty, as
# that of a sensor that returns nothing, so every pillar is 0. Targets keep how many points each agent has,
# hence the same agents count in average precision.
_blind = dict(pipeline=[dict(type="BlankInputs", keys=("points",)), dict(type="PackPlanInputs")])

train_dataloader = dict(dataset=_blind)
val_dataloader = dict(dataset=_blind)
test_dataloader = dict(dataset=_blind)
