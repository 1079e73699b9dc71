# What the public release computes: progress normalised over all proposals of a scene (METHOD, section 6,
# fault 5), and headings not wrapped in the distance to the expert (MODELS, section 11, quirk 6).
negative_mining = dict(progress="pooled")
negative_selection = dict(distance="reference")
