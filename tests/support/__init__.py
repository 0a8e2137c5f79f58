"""Helpers shared by tests and benchmarks, in addition to fixtures."""
