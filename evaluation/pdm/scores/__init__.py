"""Scores of plans: PDMS (v1), EPDMS (v2), and what a whole run adds."""
