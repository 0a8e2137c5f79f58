"""A finished result, and what is made of it.

reader         its tables, its model and its report
verify         its files against what vouches for them
verify_scores  its scores against features and model
evaluate       how well scores tell labels apart
projector      new images in its space
export         its model for scikit-learn, Spark ML and ONNX
onnx_graph     the network as an ONNX graph
"""
