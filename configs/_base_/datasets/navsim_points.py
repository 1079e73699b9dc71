# navsim.py with the points of the raw sweep.
_base_ = "./navsim.py"

feature_pipeline = [
    _base_.feature_pipeline[0],
    dict(type="LoadPoints", max_points=60_000),
    *_base_.feature_pipeline[1:],
]
feature_cache = _base_.feature_cache + "-points"
