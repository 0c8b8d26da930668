"""The transformer: parameters, initial weights, logits."""
