# navsim.py with the LiDAR raster.
_base_ = "./navsim.py"

feature_pipeline = [
    dict(type="LoadCameraStitch", size=(256, 1024)),
    dict(type="LoadLidarHistogram"),
    dict(type="EgoStatus"),
    dict(type="PlanTarget"),
    dict(type="AgentTargets"),
    dict(type="BEVMapTarget"),
]
_features = "data/cache/navsim/features-camera-lidar"
train_dataloader = dict(
    dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/navtrain_train")
)
val_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/navtrain_val"))
test_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/navtest"))
