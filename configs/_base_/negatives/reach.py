# For planners that err by more than the distance of their negatives: an error beyond the failure is pushed
# back as well.
model = dict(repulsion=dict(weight=2.5, reach=4.0, average="batch"))
