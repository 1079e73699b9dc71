"""The generated world live: SUMO moves the traffic, the painter paints from wherever the ego is."""
