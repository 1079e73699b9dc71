"""Paints the camera images: streets, houses, people, vehicles and signals as shaded polygons."""
