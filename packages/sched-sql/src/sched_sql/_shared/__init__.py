"""What both dialects share: columns, pages, the port of a dialect, its threads."""
