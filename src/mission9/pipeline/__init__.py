"""One run, from its settings to a result.

run        the stages in order
preflight  checks before any write: policy, keys, a saved estimate
plan       a listing -> a plan of shards
setup      the engine, the weights and the model
progress   the progress of a run, as a bar or as lines of the log
"""
