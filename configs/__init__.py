"""mmengine configs: ``_base_`` holds the parts, one folder per planner holds the recipes."""
