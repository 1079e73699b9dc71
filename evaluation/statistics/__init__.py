"""What differences between planners are worth: intervals over seeds and scenes, and the power to see one."""
