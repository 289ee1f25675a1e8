"""The rules on values alone, phase by phase; ``occurrences`` searches histories of them."""
