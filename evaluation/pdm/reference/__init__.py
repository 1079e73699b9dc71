"""PDM-Closed, the reference planner, and the traffic that it expects."""
