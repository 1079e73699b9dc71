"""Hard negatives: sampling strategies, mining, selection and coverage figures."""
