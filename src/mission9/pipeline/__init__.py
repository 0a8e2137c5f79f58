"""One run, from its settings to a result.

run        the stages in order
preflight  what is looked at before anything is written: policy, keys, a saved estimate
plan       a listing -> a plan of shards
setup      the engine, the weights and the model
progress   how far a run is, in a line
"""
