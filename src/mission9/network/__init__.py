"""MobileNetV2 as data: what `engines` compute.

mobilenet_v2  the architecture, as a table
weights       its weights, checked, by name or from a file
preprocess    decoded picture -> the pixels that these weights were trained on
"""
