"""Planners made ready for use: faster copies that only plan, and graph files for other runtimes."""

from beyonddrive.deploy.exported import ExportedPlanner, ExportError
from beyonddrive.deploy.graph import PlannerGraph, largest_difference, write_graph

__all__ = ["ExportError", "ExportedPlanner", "PlannerGraph", "largest_difference", "write_graph"]
