"""How long a run will take and what it will cost: a probe here, and what is assumed of other machines."""
