# Only failures within 2 m of the expert: where the nearest is farther off, imitation has nothing to lose.
model = dict(repulsion=dict(average="batch"))
negative_selection = dict(max_distance=2.0)
