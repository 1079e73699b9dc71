# TransFuser on pillars for two CPU cores, on the generated world; needs mmdet3d, see docs/mmdet3d.md
_base_ = [
    "../_base_/models/transfuser-pillars_tiny.py",
    "../_base_/datasets/synth.py",
    "../_base_/schedules/adamw_12e.py",
    "../_base_/runtime/default.py",
]

feature_pipeline = [
    dict(type="LoadCameraStitch", size=(64, 256)),
    dict(type="LoadPoints", max_points=16_000),
    dict(type="EgoStatus"),
    dict(type="PlanTarget"),
    dict(type="AgentTargets"),
    dict(type="BEVMapTarget"),
]
_features = "data/synth/cache/features-camera-64x256-points"
train_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/train"))
val_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/val"))
test_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/test"))
