"""Estimate how long a run takes and what it costs: a probe here, and what is assumed of other machines."""
