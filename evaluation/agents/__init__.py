"""Agents of NAVSIM's devkit over our scenes, with or without the devkit."""
