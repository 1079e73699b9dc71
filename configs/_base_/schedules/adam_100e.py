# Published recipe of TransFuser and LTF in NAVSIM v1.1: constant learning rate, mixed precision (MODELS,
# section 10). Without a CUDA device, mixed precision is bfloat16.
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=5)
val_cfg = dict(type="SceneValLoop")
test_cfg = dict(type="SceneTestLoop")

optim_wrapper = dict(type="AmpOptimWrapper", optimizer=dict(type="Adam", lr=1e-4, fused=True))
param_scheduler = None
auto_scale_lr = dict(base_batch_size=64, enable=False)
