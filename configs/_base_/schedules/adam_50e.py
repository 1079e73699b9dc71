# Recipe of the ego-status MLP in NAVSIM v1.1: constant learning rate (MODELS, section 10).
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=5)
val_cfg = dict(type="SceneValLoop")
test_cfg = dict(type="SceneTestLoop")

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4))
param_scheduler = None
