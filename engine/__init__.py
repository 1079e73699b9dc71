"""What runs a job: executors, hooks, schedulers and the remedies that mmengine needs."""
