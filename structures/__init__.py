"""Plan, box and ego conventions, the sample that flows through a planner, and the maths they share."""
