"""Real short trainings, failing and healthy, on which the diagnosis is measured."""
