# Control: repelled from random plans at the distance of the hard negatives, which nobody scored.
train_dataloader = dict(dataset=dict(pipeline=[dict(type="PerturbedNegatives"), dict(type="PackPlanInputs")]))
