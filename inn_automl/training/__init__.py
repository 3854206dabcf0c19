"""Training: recipes, the sandwich step, the loop with its checkpoints, and trials."""
