# Four failures that are not one failure four times, the nearest to the plan weighted most.
several = dict(
    loss=dict(reduction="softmin", temperature=0.5),
    selection=dict(type="NearestNegatives", num=4, spacing=0.5),
)
