"""DiffusionDrive: see README.md."""
