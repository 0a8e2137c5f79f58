"""Datasets to begin with.

fetch   Fruits-360 from Kaggle, or from an archive
subset  a share of the images of every label
demo    generated pictures of fruit
"""
