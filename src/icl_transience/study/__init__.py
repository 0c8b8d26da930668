"""From YAML to experiments, runs and lanes; refusals with remedies."""
