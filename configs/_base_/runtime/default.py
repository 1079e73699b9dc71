# What every run shares: hooks, logs, seeds, processes.
default_scope = "beyonddrive"

default_hooks = dict(
    runtime_info=dict(type="RuntimeInfoHook"),
    timer=dict(type="IterTimerHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    logger=dict(type="PlannerLoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    # The best checkpoint is the one with the highest PDMS on the validation split.
    checkpoint=dict(
        type="PlannerCheckpointHook", interval=1, max_keep_ckpts=2, save_best="pdms/PDMS", rule="greater"
    ),
    # Plans of two validation scenes, where logs, maps and images are at hand.
    pictures=dict(type="PlanPicturesHook", num_scenes=2, optional=True),
)
# Where figures and pictures go: scalars.json, and TensorBoard. Weights & Biases or MLflow instead:
# visualizer = dict(vis_backends=[dict(type="LocalVisBackend"), dict(type="WandbVisBackend")]).
visualizer = dict(
    type="PlanVisualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
)
custom_hooks = [
    dict(type="EpochSeedHook"),
    dict(type="CheckpointGuardHook"),
    # Planners that start from typical plans (anchors, a mixture) get them from their training split.
    dict(type="ExpertPriorHook"),
]

# Every parameter of the suite's planners that requires a gradient gets one. A planner of one's own may have
# heads without a loss; this lets them be, for a walk through the graph in every step of several processes.
find_unused_parameters = True
# "torch": batch norms take their statistics over all ranks, on GPUs (docs/training.md, "On many GPUs").
sync_bn = None
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    # A rank that does not answer for so long [s] has died: longer than any rank works alone.
    dist_cfg=dict(backend="nccl", timeout=1800),
)
randomness = dict(seed=0)
# Threads of torch on the CPU; None for one per core. Give fewer when other processes share the cores: threads
# that wait for each other make a busy machine many times slower.
num_threads = None

log_level = "INFO"
log_processor = dict(by_epoch=True)
load_from = None
resume = False
