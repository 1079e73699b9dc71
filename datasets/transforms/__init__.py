"""Transforms: a scene in, inputs and targets of a planner out."""
