# synth_points.py with the boxes of agents as targets, whose average precision validation reports, too.
_base_ = "./synth_points.py"

feature_pipeline = [*_base_.feature_pipeline, dict(type="AgentBoxTargets")]
feature_cache = _base_.feature_cache + "-boxes"
val_evaluator = [_base_.val_evaluator, dict(type="DetectionMetric")]
test_evaluator = [_base_.test_evaluator, dict(type="DetectionMetric")]
