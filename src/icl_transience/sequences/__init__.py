"""From recipes to indices of exemplars and labels; the frozen sequences of evaluators."""
