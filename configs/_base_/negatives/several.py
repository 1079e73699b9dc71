# Four failures that are not one failure four times, the nearest to the plan weighted most.
model = dict(repulsion=dict(reduction="softmin", temperature=0.5))
negative_selection = dict(num=4, spacing=0.5)
