"""Real short trainings, sick and healthy, as the proof of the diagnosis."""
