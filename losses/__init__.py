"""Losses: pure functions of tensors and thin modules around them."""
