"""The loop, and the segments and checkpoints that it is cut into."""
