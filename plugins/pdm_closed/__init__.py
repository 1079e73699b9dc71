"""PDM-Closed: see README.md."""
