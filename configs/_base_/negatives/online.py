# Negatives from the failures of the planner in training, mined again every four epochs.
online = dict(
    hook=dict(
        type="OnlineNegativesHook",
        interval=4,
        strategy=dict(type="OwnPlans", num_proposals=16, stretch=0.1, lateral=1.0),
        num_workers=4,
    ),
    loader=dict(online=True),
)
