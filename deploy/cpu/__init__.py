"""Layers and kernels for CPUs: the only place that touches private torch operators."""
