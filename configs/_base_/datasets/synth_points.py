# synth.py with the points of the raw sweep.
_base_ = "./synth.py"

feature_pipeline = [
    _base_.feature_pipeline[0],
    dict(type="LoadPoints", max_points=16_000),
    *_base_.feature_pipeline[1:],
]
feature_cache = _base_.feature_cache + "-points"
