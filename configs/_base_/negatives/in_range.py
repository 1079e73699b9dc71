# No negatives that all but are the expert, and none so far off that no plan will come near it.
in_range = dict(
    loss=dict(average="batch"),
    selection=dict(type="NearestNegatives", min_distance=0.3, max_distance=3.0),
)
