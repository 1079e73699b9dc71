"""Compiled parts of the score: simulation, areas, collisions, comfort; imports nothing above it."""
