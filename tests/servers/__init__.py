"""Real servers, poolers and proxies that tests and benchmarks start and stop."""
