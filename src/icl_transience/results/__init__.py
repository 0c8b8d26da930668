"""Care of what stands in results/: status, cost, orphans, provenance."""
