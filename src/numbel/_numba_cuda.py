"""Every use of what lies below `numba.cuda`: numba-cuda's internals, and the driver by cuda.bindings."""

from __future__ import annotations

from typing import Any


def _said(result: tuple[Any, ...], what: str) -> Any:
    """What a function of the driver returned; ValueError where it failed."""
    code, *values = result
    if int(code) != 0:
        raise ValueError(f"{what}: {code.name}")
    return values[0] if values else None


def device_of_pointer(pointer: int) -> int:
    """The number of the device where an address lies."""
    from cuda.bindings import driver

    ordinal = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(_said(driver.cuPointerGetAttribute(ordinal, pointer), f"{pointer:#x} is no address of a CUDA device"))
