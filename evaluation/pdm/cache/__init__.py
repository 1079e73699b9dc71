"""Metric caches: a scene as the arrays that its score needs."""
