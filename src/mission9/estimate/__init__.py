"""Estimate the time and cost of a run, from a probe on this machine and assumptions about others."""
