"""The hidden suites, one file per kata."""
