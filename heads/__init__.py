"""Heads: tokens in, plans and auxiliary outputs out."""
