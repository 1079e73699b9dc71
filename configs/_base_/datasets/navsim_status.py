# Test split of navsim.py for planners that look at the ego status only: no images, no feature cache.
_base_ = "./navsim.py"

feature_pipeline = [dict(type="EgoStatus"), dict(type="PlanTarget")]
train_dataloader = None
val_dataloader = None
val_evaluator = None
test_dataloader = dict(num_workers=0, dataset=dict(cache_dir=None))
