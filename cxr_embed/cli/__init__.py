"""The verbs: flags and words for people, nothing else."""
