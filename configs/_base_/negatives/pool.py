# For planners that train on a pool of negatives: the config names pool_dir, and says how strongly its planner
# is repelled by model = dict(repulsion=dict(weight=...)).
_base_ = "published.py"

train_dataloader = dict(
    dataset=dict(
        negatives=dict(
            pool="${pool_dir}",
            selection="${negative_selection}",
            progress="${negative_mining.progress}",
        )
    )
)
