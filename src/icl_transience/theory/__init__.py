"""Models of the theory that are computed, not trained: tables of what they do. No PyTorch."""
