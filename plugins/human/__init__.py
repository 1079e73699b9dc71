"""Human replay: see README.md."""
