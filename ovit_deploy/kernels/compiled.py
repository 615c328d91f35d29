"""How numba compiles the kernels of this package."""

import numpy as np
from numba import njit

Array = np.ndarray

# Sums and products may be fused; a division by zero is no error, so that divisions may be vectors.
compiled = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
