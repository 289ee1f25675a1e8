"""What users may add to a scheduler. The rest of the package imports nothing of it."""
