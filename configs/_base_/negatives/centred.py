# Centred: no mean push of a batch; that failures are more frequent on one side moves no plan by itself.
model = dict(repulsion=dict(centred=True))
