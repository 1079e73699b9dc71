# synth.py with the LiDAR raster.
_base_ = "./synth.py"

feature_pipeline = [
    _base_.feature_pipeline[0],
    dict(type="LoadLidarHistogram"),
    *_base_.feature_pipeline[1:],
]
feature_cache = _base_.feature_cache + "-lidar"
