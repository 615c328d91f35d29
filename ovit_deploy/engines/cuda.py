"""NVIDIA GPUs through their driver alone: is there one, and the memory and the stream that TensorRT wants.

The driver is asked before any runtime: TensorRT's builder raises a TypeError without a GPU, and others end the process.
Nothing here but the refusal has been run so far: there was no GPU to run it on.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ovit_deploy.errors import EngineError

DRIVER = "libcuda.so.1"
HINT = "bench --engine onnxruntime runs everywhere"
NON_BLOCKING = 1
CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def refusal(driver: str = DRIVER) -> str:
    """Why nothing can run on an NVIDIA GPU here; empty if it can."""
    try:
        library = ctypes.CDLL(driver)
    except OSError:
        return f"needs an NVIDIA GPU: no driver is here ({driver})"
    if code := library.cuInit(0):
        return f"needs an NVIDIA GPU: the driver finds none (cuInit gives {code})"
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    return "" if count.value else "needs an NVIDIA GPU: the driver counts none"


def require(engine: str) -> None:
    """Refuse a machine without a GPU.

    Raises:
        EngineError: there is none.
    """
    if why := refusal():
        raise EngineError(f"{engine} {why}", HINT)


class Device:
    """The first GPU: its primary context, which other libraries share, and a stream. Its memory goes with the process.

    Raises:
        EngineError: a call of the driver fails.
    """

    def __init__(self) -> None:
        self.library = ctypes.CDLL(DRIVER)
        self._call("cuInit", 0)
        self.number, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(self.number), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.number)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), NON_BLOCKING)
        self.stream: int = stream.value or 0

    def allocate(self, num_bytes: int) -> int:
        """The address of so much memory on the GPU."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(num_bytes))
        return address.value

    def upload(self, address: int, values: np.ndarray) -> None:
        """Copy a contiguous array to the GPU, on the stream."""
        source = ctypes.c_void_p(values.ctypes.data)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, *self._size_and_stream(values))

    def download(self, address: int, values: np.ndarray) -> None:
        """Fill a contiguous array from the GPU, on the stream."""
        target = ctypes.c_void_p(values.ctypes.data)
        self._call("cuMemcpyDtoHAsync_v2", target, ctypes.c_uint64(address), *self._size_and_stream(values))

    def wait(self) -> None:
        """Until all on the stream is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    @property
    def name(self) -> str:
        """As its maker calls it, with its compute capability."""
        name, figures = ctypes.create_string_buffer(256), []
        self._call("cuDeviceGetName", name, len(name), self.number)
        for attribute in CAPABILITY:
            figure = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(figure), attribute, self.number)
            figures.append(str(figure.value))
        return f"{name.value.decode()}, {'.'.join(figures)}"

    def _size_and_stream(self, values: np.ndarray) -> tuple[Any, Any]:
        return ctypes.c_size_t(values.nbytes), ctypes.c_void_p(self.stream)

    def _call(self, function: str, *arguments: Any) -> None:
        if code := getattr(self.library, function)(*arguments):
            raise EngineError(f"{function} of the CUDA driver gives error {code}")
