"""From a study to the paths, jobs and resources of the workflow."""
