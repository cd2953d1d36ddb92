"""PTX executed on this processor: what Numba's CUDA target compiled is run without a card.

`parser` reads a kernel's PTX, `translator` makes LLVM IR of it, `machine` runs the IR's machine code block by block
over the address space of `memory`. `driver` puts them below the real numba-cuda, as a libcuda.so.1 made from
`driver.c`. `exact` and `addresses` are what PTX and machine code show without being run.
"""
