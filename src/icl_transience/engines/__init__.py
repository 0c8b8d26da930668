"""Ways to compute the same steps and the same answers, at different speeds."""
