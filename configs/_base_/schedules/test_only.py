# For planners without weights: nothing to train.
test_cfg = dict(type="SceneTestLoop")
