"""MeanFuser: see README.md."""
