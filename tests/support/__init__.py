"""Helpers shared by tests, in addition to fixtures."""
