"""The oracle: judges whole histories, and shares no code with what it judges."""
