# The score's reference planner, which knows the true state of the world: a row to compare with.
_base_ = [
    "../_base_/datasets/synth_status.py",
    "../_base_/schedules/test_only.py",
    "../_base_/runtime/default.py",
]

model = dict(type="PdmClosed")
feature_pipeline = [
    dict(type="EgoStatus"),
    dict(type="beyonddrive.evaluation.reference_plan.ReferencePlan"),
]
