# Other exposures and colours of the training images; add it behind a planner's config in _base_.
train_dataloader = dict(
    dataset=dict(pipeline=[dict(type="PhotometricAugmentation"), dict(type="PackPlanInputs")])
)
