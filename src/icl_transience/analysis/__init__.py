"""From metrics to tables, and from tables to verdicts. No torch."""
