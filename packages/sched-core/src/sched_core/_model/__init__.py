"""The values of the domain: immutable, without a clock, without I/O."""
