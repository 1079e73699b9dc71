"""Every score of one file of plans: what is asked of each scene, and what comes of a run."""
