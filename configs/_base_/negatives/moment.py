# Only the poses around the moment of failure are repelled, those before it longer than those after it.
moment = dict(loss=dict(window=dict(before=1.0, after=0.5)))
