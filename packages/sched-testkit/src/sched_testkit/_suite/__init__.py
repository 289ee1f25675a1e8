"""The conformance suite: how laws are run, what they work with, what the certificate says."""
