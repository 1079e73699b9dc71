_blind = [
    dict(input_keys=('status', ), type='PackPlanInputs'),
]
auto_scale_lr = dict(base_batch_size=16, enable=False)
cache_root = 'stores'
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='CheckpointGuardHook'),
    dict(type='ExpertPriorHook'),
]
data_root = 'data'
default_hooks = dict(
    checkpoint=dict(
        interval=1,
        max_keep_ckpts=2,
        rule='greater',
        save_best='pdms/PDMS',
        type='PlannerCheckpointHook'),
    logger=dict(interval=50, type='PlannerLoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    pictures=dict(num_scenes=2, optional=True, type='PlanPicturesHook'),
    runtime_info=dict(type='RuntimeInfoHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'))
default_scope = 'beyonddrive'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl', timeout=1800),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
feature_cache = 'stores/features'
feature_pipeline = [
    dict(type='EgoStatus'),
    dict(type='PlanTarget'),
    dict(type='BEVMapTarget', walkways=False),
]
find_unused_parameters = True
load_from = None
log_level = 'INFO'
log_processor = dict(by_epoch=True)
maps_root = 'data/maps'
model = dict(
    hidden=16,
    num_layers=1,
    trajectory_head=dict(
        bounded_heading=False,
        hidden=None,
        loss=dict(type='PlanL1Loss', weight=1.0),
        type='AbsoluteTrajectoryHead'),
    type='EgoStatusMLP')
num_threads = None
optim_wrapper = dict(
    clip_grad=dict(max_norm=50.0),
    optimizer=dict(
        betas=(
            0.9,
            0.999,
        ),
        eps=1e-08,
        lr=0.001,
        type='AdamW',
        weight_decay=0.0),
    type='OptimWrapper')
param_scheduler = dict(eta_min=1e-06, type='WarmupCosineLR', warmup=1)
randomness = dict(seed=0)
resume = False
sync_bn = None
test_cfg = dict(type='SceneTestLoop')
test_dataloader = dict(
    batch_size=16,
    dataset=dict(
        cache_dir='stores/features/test',
        data_root='data',
        feature_pipeline=[
            dict(type='EgoStatus'),
            dict(type='PlanTarget'),
            dict(type='BEVMapTarget', walkways=False),
        ],
        maps_root='data/maps',
        pipeline=[
            dict(input_keys=('status', ), type='PackPlanInputs'),
        ],
        scene_filter=None,
        split='test',
        type='NavsimDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(
    cache_dir='stores/metrics/test',
    data_root='data',
    maps_root='data/maps',
    num_workers=0,
    split='test',
    type='PDMSMetric')
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=2)
train_dataloader = dict(
    batch_size=2,
    collate_fn=dict(type='collate_samples'),
    dataset=dict(
        cache_dir='stores/features/train',
        data_root='data',
        feature_pipeline=[
            dict(type='EgoStatus'),
            dict(type='PlanTarget'),
            dict(type='BEVMapTarget', walkways=False),
        ],
        maps_root='data/maps',
        pipeline=[
            dict(input_keys=('status', ), type='PackPlanInputs'),
        ],
        scene_filter=None,
        split='train',
        type='NavsimDataset'),
    drop_last=True,
    num_workers=0,
    sampler=dict(shuffle=True, type='RoundDownSampler'))
val_cfg = dict(type='SceneValLoop')
val_dataloader = dict(
    batch_size=16,
    dataset=dict(
        cache_dir='stores/features/val',
        data_root='data',
        feature_pipeline=[
            dict(type='EgoStatus'),
            dict(type='PlanTarget'),
            dict(type='BEVMapTarget', walkways=False),
        ],
        maps_root='data/maps',
        pipeline=[
            dict(input_keys=('status', ), type='PackPlanInputs'),
        ],
        scene_filter=None,
        split='val',
        type='NavsimDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(
    cache_dir='stores/metrics/val',
    data_root='data',
    maps_root='data/maps',
    num_workers=0,
    split='val',
    type='PDMSMetric')
visualizer = dict(
    type='PlanVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
    ])
