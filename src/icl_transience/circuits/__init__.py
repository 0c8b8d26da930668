"""What is measured inside a model, and what is done to it."""
