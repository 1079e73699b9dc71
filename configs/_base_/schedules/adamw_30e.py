# Published recipe of WoTE on 8 GPUs with 16 scenes each: 30 epochs of a schedule made for 100, in mixed
# precision (MODELS, section 10). Without a CUDA device, mixed precision is bfloat16.
_base_ = "./adamw_100e.py"

train_cfg = dict(max_epochs=30)
optim_wrapper = dict(type="AmpOptimWrapper", optimizer=dict(lr=1e-4, weight_decay=1e-4), clip_grad=None)
param_scheduler = dict(eta_min=1e-6, end=100)
auto_scale_lr = dict(base_batch_size=128)
