"""The streams of a NATS server: the connection, and how they are read and written."""
