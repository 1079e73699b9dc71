# Centred: no mean push of a batch, so that the side on which failures are more frequent moves no plan by itself.
model = dict(repulsion=dict(centred=True))
