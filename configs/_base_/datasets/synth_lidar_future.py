# synth_lidar.py with the map at the end of a plan, for WoTE.
_base_ = "./synth_lidar.py"

feature_pipeline = [
    dict(type="LoadCameraStitch", size=(64, 256)),
    dict(type="LoadLidarHistogram"),
    dict(type="EgoStatus"),
    dict(type="PlanTarget"),
    dict(type="AgentTargets"),
    dict(type="BEVMapTarget"),
    dict(type="FutureBEVMapTarget"),
]
_features = "data/synth/cache/features-camera-64x256-lidar-future"
train_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/train"))
val_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/val"))
test_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/test"))
