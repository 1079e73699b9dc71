_encoder = dict(
    channels=(
        16,
        32,
        64,
        128,
    ),
    layers=(
        1,
        1,
        1,
        1,
    ),
    name='resnet18',
    stem_type='deep',
    stem_width=8)
auto_scale_lr = dict(base_batch_size=16, enable=False)
cache_root = 'data/synth/cache'
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='CheckpointGuardHook'),
    dict(type='ExpertPriorHook'),
]
data_root = 'data/synth'
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
feature_cache = 'data/synth/cache/features-camera-64x256'
feature_pipeline = [
    dict(size=(
        64,
        256,
    ), type='LoadCameraStitch'),
    dict(type='EgoStatus'),
    dict(type='PlanTarget'),
    dict(type='AgentTargets'),
    dict(type='BEVMapTarget'),
]
find_unused_parameters = True
load_from = None
log_level = 'INFO'
log_processor = dict(by_epoch=True)
maps_root = 'data/synth/maps'
model = dict(
    agent_head=None,
    backbone=dict(
        bev_encoder=dict(
            channels=(
                8,
                8,
                8,
                8,
            ),
            layers=(
                1,
                1,
                1,
                1,
            ),
            name='resnet18',
            stem_type='deep',
            stem_width=4),
        bev_size=(
            128,
            128,
        ),
        dropout=0.0,
        image_encoder=dict(
            channels=(
                8,
                8,
                8,
                8,
            ),
            layers=(
                1,
                1,
                1,
                1,
            ),
            name='resnet18',
            stem_type='deep',
            stem_width=4),
        image_size=(
            64,
            256,
        ),
        latent=True,
        num_layers=1,
        top_down_channels=16),
    bev_head=dict(
        in_channels=16,
        loss=dict(target_stride=4, type='BEVSemanticLoss', weight=1.0),
        map_size=(
            32,
            64,
        ),
        type='BEVSemanticHead'),
    decoder=dict(
        dim=16, ffn_dim=16, num_heads=2, num_layers=1, num_queries=31),
    trajectory_head=dict(
        arm_weight=2.0,
        bev_channels=16,
        bev_size=(
            4,
            4,
        ),
        denoiser=dict(ffn_dim=16, num_heads=2, num_layers=1),
        dim=16,
        flow_weight=7.0,
        map_size=(
            16,
            16,
        ),
        map_stride=2,
        num_components=8,
        num_context=30,
        num_proposals=8,
        reconstruction=dict(ffn_dim=16, hidden=16, num_heads=2, num_layers=1),
        steps=1,
        type='MeanFlowHead'),
    type='MeanFuserPlanner')
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
        cache_dir='data/synth/cache/features-camera-64x256/test',
        data_root='data/synth',
        feature_pipeline=[
            dict(size=(
                64,
                256,
            ), type='LoadCameraStitch'),
            dict(type='EgoStatus'),
            dict(type='PlanTarget'),
            dict(type='AgentTargets'),
            dict(type='BEVMapTarget'),
        ],
        maps_root='data/synth/maps',
        pipeline=[
            dict(type='PackPlanInputs'),
        ],
        scene_filter='data/synth/scene_filters/test.yaml',
        split='test',
        type='NavsimDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(
    cache_dir='data/synth/cache/metrics/test',
    data_root='data/synth',
    maps_root='data/synth/maps',
    num_workers=0,
    split='test',
    type='PDMSMetric')
train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=4)
train_dataloader = dict(
    batch_size=16,
    collate_fn=dict(type='collate_samples'),
    dataset=dict(
        cache_dir='data/synth/cache/features-camera-64x256/train',
        data_root='data/synth',
        feature_pipeline=[
            dict(size=(
                64,
                256,
            ), type='LoadCameraStitch'),
            dict(type='EgoStatus'),
            dict(type='PlanTarget'),
            dict(type='AgentTargets'),
            dict(type='BEVMapTarget'),
        ],
        maps_root='data/synth/maps',
        pipeline=[
            dict(type='PackPlanInputs'),
        ],
        scene_filter='data/synth/scene_filters/train.yaml',
        split='train',
        type='NavsimDataset'),
    drop_last=True,
    num_workers=0,
    sampler=dict(shuffle=True, type='RoundDownSampler'))
val_cfg = dict(type='SceneValLoop')
val_dataloader = dict(
    batch_size=16,
    dataset=dict(
        cache_dir='data/synth/cache/features-camera-64x256/val',
        data_root='data/synth',
        feature_pipeline=[
            dict(size=(
                64,
                256,
            ), type='LoadCameraStitch'),
            dict(type='EgoStatus'),
            dict(type='PlanTarget'),
            dict(type='AgentTargets'),
            dict(type='BEVMapTarget'),
        ],
        maps_root='data/synth/maps',
        pipeline=[
            dict(type='PackPlanInputs'),
        ],
        scene_filter='data/synth/scene_filters/val.yaml',
        split='val',
        type='NavsimDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(
    cache_dir='data/synth/cache/metrics/val',
    data_root='data/synth',
    maps_root='data/synth/maps',
    num_workers=0,
    split='val',
    type='PDMSMetric')
visualizer = dict(
    type='PlanVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
    ])
