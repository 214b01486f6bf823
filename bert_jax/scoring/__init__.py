"""How good predictions are: scores as the tasks' own scripts count them, in NumPy."""
