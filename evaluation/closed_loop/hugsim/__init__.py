"""HUGSIM's closed loop without its images: commands, motion, ends of episodes, HD-Score."""
