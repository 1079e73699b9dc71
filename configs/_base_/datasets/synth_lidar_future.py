# synth_lidar.py with the map at the end of a plan, for WoTE.
_base_ = "./synth_lidar.py"

feature_pipeline = [*_base_.feature_pipeline, dict(type="FutureBEVMapTarget")]
feature_cache = _base_.feature_cache + "-future"
