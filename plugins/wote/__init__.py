"""WoTE: see README.md."""
