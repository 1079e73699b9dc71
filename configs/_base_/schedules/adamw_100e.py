# Published recipe of LTF* and LTFv7 on 8 GPUs with 4 scenes each (METHOD, section 5; MODELS, section 10).
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=5)
val_cfg = dict(type="SceneValLoop")
test_cfg = dict(type="SceneTestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True),
    clip_grad=dict(max_norm=50.0),
    # Learning rates per part, which the published schedules undo (MODELS, quirk 16):
    # paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))),
)
param_scheduler = dict(type="WarmupCosineLR", warmup=3, eta_min=1e-7)
# Scenes per step, over all GPUs, that the learning rate is for; train --auto-scale-lr scales it to others.
auto_scale_lr = dict(base_batch_size=32, enable=False)
