# synth.py with a LiDAR raster of half the published resolution, for tiny planners.
_base_ = "./synth.py"

feature_pipeline = [
    _base_.feature_pipeline[0],
    dict(type="LoadLidarHistogram", size=128),
    *_base_.feature_pipeline[1:],
]
feature_cache = _base_.feature_cache + "-lidar"
