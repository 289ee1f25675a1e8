"""The runtime: claims due jobs, calls their handlers, and writes the outcomes of their runs."""
