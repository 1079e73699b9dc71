"""nuPlan maps read from GeoPackage files."""
