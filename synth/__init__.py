"""The generated world: traffic simulated by Eclipse SUMO, written in the layout of NAVSIM."""
