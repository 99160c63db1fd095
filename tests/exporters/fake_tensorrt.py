"""A TensorRT that loads and runs engines over the fake driver's memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class FakeTensorrt:
    """An engine for batches of 1 to 4 whose logits are the first 40 bytes of each image."""

    float32, uint8 = "FLOAT", "UINT8"
    __version__ = "0"
    TensorIOMode = SimpleNamespace(INPUT="in")
    _takes: Callable[[Callable[[], None]], None] = staticmethod(lambda kernels: kernels())
    """Runs what an inference is, or has a driver run it."""

    class ILogger:
        pass

    class Runtime:
        def __init__(self, logger: object) -> None:
            self.logger: Any = logger

        def deserialize_cuda_engine(self, content: bytes) -> FakeTensorrt | None:
            made = FakeTensorrt()
            if content == b"good":
                return made
            if content == b"pixels":
                made.dtypes["images"], made.image = FakeTensorrt.uint8, (32, 32, 3)
                return made
            self.logger.log(SimpleNamespace(name="ERROR"), "wrong version\nof the plan")
            return None

    def __init__(self) -> None:
        self.num_io_tensors = 2
        self.addresses: dict[str, int] = {}
        self.shape = (0, 0, 0, 0)
        self.dtypes = {"logits": self.float32, "images": self.float32}
        self.image: tuple[int, int, int] = (3, 32, 32)
        self.runs = 0

    def get_tensor_name(self, index: int) -> str:
        return ("logits", "images")[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"images": "in", "logits": "out"}[name]

    def get_tensor_dtype(self, name: str) -> str:
        return self.dtypes[name]

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return -1, 10

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(batch, *self.image) for batch in (1, 2, 4)]

    def create_execution_context(self) -> FakeTensorrt:
        return self

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, int, int, int]) -> bool:
        self.shape = shape
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        self.runs += 1
        self._takes(self._kernels)
        return True

    def _kernels(self) -> None:
        item = 4 if self.dtypes["images"] == self.float32 else 1
        for index in range(self.shape[0]):
            source = self.addresses["images"] + item * index * 3 * 32 * 32
            ctypes.memmove(self.addresses["logits"] + 4 * index * 10, source, 40)
