"""MobileNetV2 as data, and the engines that compute it.

mobilenet_v2  the architecture, as a table
weights       its weights, checked, by name or from a file
preprocess    decoded picture -> pixels in the form that these weights were trained on
extraction    the settings that workers need to compute features: engine, weights, limits
engines       torch, OpenVINO, int8
"""
