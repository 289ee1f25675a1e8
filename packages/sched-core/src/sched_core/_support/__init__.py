"""What all files of the package may use, and that knows nothing of jobs."""
