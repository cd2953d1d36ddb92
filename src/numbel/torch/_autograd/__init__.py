"""What `numbel.torch` is made of: seeds, tensors as arrays, derivatives, and the operators of graphs."""

from .functions import apply
from .operators import compiled, sampled
from .relaxed import Relaxed
from .samples import Drawn, Method, Sampled, Sampling, draw_traced, own_temperature
from .seeds import AnyGenerator, address_of, addressed, draw_of
from .tensors import Tensor, as_array, check, from_array, from_end, known, operand, plain, positive

__all__ = [
    "AnyGenerator",
    "Drawn",
    "Method",
    "Relaxed",
    "Sampled",
    "Sampling",
    "Tensor",
    "address_of",
    "addressed",
    "apply",
    "as_array",
    "check",
    "compiled",
    "draw_of",
    "draw_traced",
    "from_array",
    "from_end",
    "known",
    "operand",
    "own_temperature",
    "plain",
    "positive",
    "sampled",
]
