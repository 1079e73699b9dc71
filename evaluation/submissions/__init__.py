"""Submissions to NAVSIM's leaderboards: the official file, written and read without the devkit."""
