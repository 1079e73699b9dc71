# Straight ahead at the current speed; no parameters, no checkpoint.
model = dict(type="ConstantVelocity")
