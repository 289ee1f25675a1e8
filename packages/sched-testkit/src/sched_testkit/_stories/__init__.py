"""Sequences of calls of the port, and the model that says what each must answer."""
