"""Command lines; each also runs as ``python -m beyonddrive.tools.<name>``."""
