"""Closed loop: what a planner is worth when it drives on from what it did."""
