"""Command lines, one file each; ``beyonddrive VERB`` and ``python tools/<file>.py`` run the same code."""
