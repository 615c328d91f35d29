"""Fast kernels behind one signature each, with a plain reference beside them."""
