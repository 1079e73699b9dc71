"""What planners are made of: base classes, sampling, the preprocessor."""
