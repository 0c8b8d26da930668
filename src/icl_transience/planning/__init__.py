"""From a study to the files, jobs and resources of the workflow."""
