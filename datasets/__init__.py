"""From files to samples: NAVSIM logs, nuPlan maps, sensors, stores on disk and the generated world."""
