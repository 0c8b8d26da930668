"""What snapshots answer on the evaluators' frozen sequences."""
