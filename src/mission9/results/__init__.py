"""Read, verify, evaluate and export a finished result.

reader         its tables, its model and its report
verify         a check of its files, rows and counts
verify_scores  a check of its scores against features and model
evaluate       the accuracy of classifiers on its scores
projector      new images in its PCA space
export         its model for scikit-learn, Spark ML and ONNX
onnx_graph     the network and the PCA as one ONNX graph
"""
