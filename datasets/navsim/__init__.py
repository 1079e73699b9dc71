"""NAVSIM on disk: logs, scenes, filters, sensors."""
