"""Hooks for the mmengine runner."""
