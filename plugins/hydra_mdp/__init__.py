"""A vocabulary planner of the Hydra-MDP kind: see README.md."""
