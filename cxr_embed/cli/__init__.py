"""The verbs of the command line: flags, progress, logs and summaries."""
