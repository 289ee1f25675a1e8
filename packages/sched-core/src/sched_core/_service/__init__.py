"""The application service: what callers declare, change and ask, over any store of jobs."""
