# Only the poses around the moment of failure are repelled, those before it longer than those after it.
model = dict(repulsion=dict(window=dict(before=1.0, after=0.5)))
