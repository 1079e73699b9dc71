"""Stores of derived data, what they were made from, and the rules that select from them."""
