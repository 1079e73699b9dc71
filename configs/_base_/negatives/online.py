# Negatives from the failures of the planner in training, mined again every four epochs.
train_dataloader = dict(dataset=dict(negatives=dict(online=True)))
default_hooks = dict(
    online_negatives=dict(
        type="OnlineNegativesHook",
        interval=4,
        strategy=dict(type="OwnPlans", num_proposals=16, stretch=0.1, lateral=1.0),
        progress="${negative_mining.progress}",
        num_workers=4,
        on_ray=False,
        ray_address=None,
    )
)
