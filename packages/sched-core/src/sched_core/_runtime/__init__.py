"""The runtime: claims what is due, calls handlers, writes how their runs end."""
