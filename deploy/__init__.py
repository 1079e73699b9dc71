"""Planners made ready for use: faster copies, graph files; drivers that serve them."""
