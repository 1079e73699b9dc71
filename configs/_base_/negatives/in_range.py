# No negatives that all but are the expert, and none so far off that no plan will come near it.
model = dict(repulsion=dict(average="batch"))
negative_selection = dict(min_distance=0.3, max_distance=3.0)
