"""Its presence puts this folder on the path: tests write ``from cases import tiny_vit``, ``import oracles``."""
