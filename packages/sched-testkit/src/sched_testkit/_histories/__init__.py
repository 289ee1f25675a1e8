"""Whole histories on the real scheduler: what people do, and what happens to processes."""
