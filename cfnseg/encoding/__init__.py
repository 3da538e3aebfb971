"""Encoders over intermediate layers of a frozen net: what one did with a net's inner stages before fusion was trained.

An encoder here is a feature encoder in scikit-learn's convention, not the backbone: it turns the local descriptors of a stage
into one vector an image, for a linear SVM or for retrieval.
"""
