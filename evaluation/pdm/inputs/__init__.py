"""What log and map say of a scene, as arrays."""
