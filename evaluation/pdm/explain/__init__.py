"""Why plans lose points."""
