# Training samples as a car that stands up to 0.5 m aside and looks up to 5 degrees aside would have them, in
# other colours. The camera feature needs its rig; a config that has this file as a base says
#   feature_pipeline = [_base_.feature_pipeline[0] | dict(rig=True), *_base_.feature_pipeline[1:]]
#   feature_cache = _base_.feature_cache + "-rig"
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="ViewAugmentation", max_yaw=5.0, max_shift=0.5),
            dict(type="PhotometricAugmentation"),
            dict(type="PackPlanInputs"),
        ]
    )
)
