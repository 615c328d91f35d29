"""The sparse engine: sparse weights times dense activations, tokens along the vector.

network.py       a vision transformer as arrays
"""
