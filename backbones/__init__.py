"""Backbones: sensors in, tokens and bird's-eye-view maps out."""
