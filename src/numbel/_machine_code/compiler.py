"""How our functions are compiled: every use of Numba's internals, but for the cache of CUDA kernels.

Numba takes each function for one that Python may call. It optimises the function as a module of its own, emits machine
code, wraps it for CPython and C, and loads it. Its callers then link its bitcode and compile it once more. Below an
entry point of ours lie a hundred functions that Python never calls. They are *inner* functions: typed and lowered, no
more.

An *entry point* links the inner functions that it needs and is compiled once, as a whole. It takes int64 arguments and
returns nothing. Its object file needs nothing of Numba: no reference counts, no exceptions, no allocations.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from llvmlite.ir import Module
from numba.core import cgutils, compiler, config, ir, lowering, typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager, _pass_registry, register_pass
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.runtime.nrt import rtsys
from numba.core.types import unliteral  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numba.np.ufunc.parallel import _launch_threads


class _Lower(lowering.Lower):  # type: ignore[misc]
    """Vectors as wide as the registers: LLVM holds most Intel cores with AVX-512 to 256 bits.

    On such a core noise goes from 1.35 to 1.63 G/s, grouped sampling from 2.2 to 3.9 (from memory) and from 5.0 to 6.2
    (from cache); gumbel_max loses a tenth.
    """

    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        # past llvmlite's list of known attributes, which has none with a value
        set.add(self.function.attributes, '"prefer-vector-width"="512"')


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):  # type: ignore[misc]
    _name = "numbel_native_lowering"
    lowering_class = _Lower


class _LowerApart(_Lower):
    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        self.function.attributes.add("noinline")


@register_pass(mutates_CFG=True, analysis_only=False)
class _LoweringApart(typed_passes.NativeLowering):  # type: ignore[misc]
    _name = "numbel_native_lowering_apart"
    lowering_class = _LowerApart


def _extreme(comparison: str) -> Any:
    """Python's min or max of two numbers: the first unless the second compares so."""

    @intrinsic  # type: ignore[untyped-decorator]
    def extreme(typingctx: Any, first: Any, second: Any) -> Any:
        both = typingctx.unify_types(unliteral(first), unliteral(second))

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            first, second = args
            if isinstance(both, types.Float):
                chosen = builder.fcmp_ordered(comparison, second, first)
            elif both.signed:
                chosen = builder.icmp_signed(comparison, second, first)
            else:
                chosen = builder.icmp_unsigned(comparison, second, first)
            return builder.select(chosen, second, first)

        return both(both, both), codegen

    return extreme


#: Numba's own go through a tuple and two functions more, for each pair of types: 0.05 s of compiling.
_EXTREMES = {min: _extreme("<"), max: _extreme(">")}


@register_pass(mutates_CFG=True, analysis_only=False)
class _Translate(untyped_passes.TranslateByteCode):  # type: ignore[misc]
    """Bytecode to Numba's IR; min and max of two become an instruction."""

    _name = "numbel_translate_bytecode"

    def run_pass(self, state: Any) -> bool:
        super().run_pass(state)
        pairs: set[str] = set()
        others: set[str] = set()
        for block in state.func_ir.blocks.values():
            for assignment in block.find_insts(ir.Assign):
                value = assignment.value
                if isinstance(value, ir.Expr) and value.op == "call":
                    (pairs if len(value.args) == 2 else others).add(value.func.name)
        for block in state.func_ir.blocks.values():
            for assignment in block.find_insts(ir.Assign):
                value, name = assignment.value, assignment.target.name
                if isinstance(value, ir.Global) and value.value in (min, max) and name in pairs - others:
                    value.value = _EXTREMES[value.value]
        return True


@register_pass(mutates_CFG=False, analysis_only=False)
class _StripPhis(typed_passes.PreLowerStripPhis):  # type: ignore[misc]
    """Assignments in place of phi nodes, and nothing about the lifetimes of variables: none counts references."""

    _name = "numbel_strip_phis"

    def run_pass(self, state: Any) -> bool:
        state.func_ir = self._strip_phi_nodes(state.func_ir)
        return True


#: What inner functions need of Numba's passes: no closures, no array expressions, no `with`, no overload is inlined.
_BEFORE = (
    _Translate,
    untyped_passes.FixupArgs,
    untyped_passes.RewriteSemanticConstants,
    untyped_passes.DeadBranchPrune,
    untyped_passes.GenericRewrites,
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    _StripPhis,
)


class _Passes(PassManager):  # type: ignore[misc]
    """Passes one after the other, without the events, timers and checks that Numba adds to each."""

    def run(self, state: Any) -> None:
        for each, _ in self.passes:
            instance = _pass_registry.get(each).pass_inst
            instance.analysis = self._analysis
            instance.run_pass(state)


class _WithoutEnvironments:
    """A code generator that leaves environments alone: they are for functions that Python calls."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, name: str, env: Any) -> None:
        """The symbol has no address yet."""


class _InnerLibrary(JITCodeLibrary):  # type: ignore[misc]
    """An inner function as it was lowered, and the libraries of those that it calls."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self._lowered: list[Module] = []
        self._shared_module: Any = None

    @property
    def codegen(self) -> Any:
        return _WithoutEnvironments(self._codegen)

    def add_ir_module(self, ir_module: Any) -> None:
        self._lowered.append(ir_module)

    def add_linking_library(self, library: Any) -> None:
        if library is not rtsys.library:  # the runtime: nothing of ours counts references
            self._linking_libraries.append(library)

    def finalize(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0  # nobody calls it

    def alone(self) -> Any:
        """The module of this function alone, each of its functions optimised for itself."""
        for lowered in self._lowered:
            module = llvm.parse_assembly(cgutils.normalize_ir_text(str(lowered)))
            module.data_layout = self._codegen._data_layout
            # without these passes LLVM vectorises noise no more: half the speed
            for name in [each.name for each in lowered.functions if not each.is_declaration]:
                passes, builder = self._codegen._function_pass_manager()
                passes.run(module.get_function(cgutils.normalize_ir_text(name)), builder)
            self._final_module.link_in(module)
        self._lowered = []
        return self._final_module

    def everything(self) -> list[Any]:
        """Itself and all libraries that it needs, each once."""
        found = {id(self): self}
        for library in self._linking_libraries:
            needed = library.everything() if isinstance(library, _InnerLibrary) else [library]
            found.update((id(each), each) for each in needed)
        return list(found.values())

    def linked(self, linkage: str, symbol: str = "") -> Any:
        """One module of all that this library needs; functions but `symbol` get that linkage."""
        module = llvm.parse_assembly(str(self._codegen._create_empty_module(self.name)))
        for library in self.everything():
            part = library.alone() if isinstance(library, _InnerLibrary) else library._get_module_for_linking()
            module.link_in(part, preserve=True)
        # not before: LLVM leaves out what may be left out and is not called yet
        for function in module.functions:
            if not function.is_declaration and function.linkage == llvm.Linkage.external and function.name != symbol:
                function.linkage = linkage
        return module

    def _get_module_for_linking(self) -> Any:
        """The module that a function of somebody else's links."""
        if self._shared_module is None:
            self._shared_module = self.linked("linkonce_odr")
        return self._shared_module


class _InnerCompiler(compiler.Compiler):  # type: ignore[misc]
    lowering: Any = _Lowering
    count = 0

    def define_pipelines(self) -> Any:
        _InnerCompiler.count += 1  # a name that no other has
        name = f"{self.state.func_id.func_qualname}.{_InnerCompiler.count}"
        self.state.library = _InnerLibrary(self.state.targetctx.codegen(), name)
        self.state.type_annotation = None
        passes = _Passes("numbel")
        for each in (*_BEFORE, self.lowering, typed_passes.NoPythonBackend):
            passes.add_pass(each, each.__name__)
        passes.finalize()
        return [passes]


class _ApartCompiler(_InnerCompiler):
    lowering = _LoweringApart


_OPTIONS = {"nopython": True, "error_model": "numpy", "nogil": True, "_nrt": False}
#: Said also where it is False: else a function is inlined by force when one that is compiles it first.
_INNER = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": False}


class Inner(CPUDispatcher):  # type: ignore[misc]
    """An inner function. Called from Python, it is compiled once more, as Numba compiles any function."""

    @functools.cached_property
    def _callable(self) -> Any:
        options = {key: value for key, value in self.targetoptions.items() if key in ("error_model", "nogil")}
        return numba.njit(self.py_func, **options)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Its type for a call: once for each type of number, not for each constant that is handed to it."""
        return super().get_call_template(tuple(map(unliteral, args)), {k: unliteral(v) for k, v in kws.items()})

    def __call__(self, *args: Any, **kws: Any) -> Any:
        return self._callable(*args, **kws)


def inner(*, force: bool = False, apart: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Make a function an inner one, inlined by `force` or never (`apart`)."""
    options = {**_INNER, "forceinline": True} if force else _INNER

    def decorate(function: Callable[..., Any]) -> Any:
        return Inner(function, {}, options, _ApartCompiler if apart else _InnerCompiler)

    return decorate


@contextmanager
def _quickly() -> Iterator[None]:
    """Compile in a third less time: what is asked again and again is asked once.

    Numba imports all its registries whenever it looks for new functions, types a call anew in each place, and has LLVM
    parse a module to learn the size of each variable. Garbage is collected afterwards (a tenth of the time). Numba's
    global lock is held meanwhile.
    """
    context = cpu_target.target_context
    context.refresh()

    def look_for_ours() -> None:
        for registry in list(context._registries):
            context.install_registry(registry)
        context.typing_context.refresh()

    answers: dict[Any, Any] = {}

    def resolve(function: Any, args: Any, kws: Any) -> Any:
        if kws or isinstance(function, str):
            return ask(function, args, kws)
        if (function, args) not in answers:
            found = ask(function, args, kws)
            if found is None:
                return None
            answers[function, args] = found
        return answers[function, args]

    sizes: dict[str, int] = {}

    def size_of(llvm_type: Any, *rest: Any) -> int:
        name = str(llvm_type)
        if name not in sizes:
            sizes[name] = measure(llvm_type, *rest)
        return sizes[name]

    typing = context.typing_context
    ask, measure = typing.resolve_function_type, context.get_abi_sizeof
    typing.resolve_function_type, context.get_abi_sizeof = resolve, size_of
    context.refresh = look_for_ours
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        del context.refresh, typing.resolve_function_type, context.get_abi_sizeof
        if collects:
            gc.enable()


def compile_entry(function: Callable[..., None], symbol: str, arguments: int) -> tuple[bytes, str]:
    """Compile a function of so many int64: its object file, and its symbol there.

    The C function takes them, and returns nothing.
    """
    with global_compiler_lock, _quickly():
        module, codegen = _optimised(function, symbol, arguments)
        return codegen._tm.emit_object(module), symbol


def compile_shared(function: Callable[..., None], symbol: str, arguments: int) -> bytes:
    """The same as an object file that a shared library can be linked from."""
    with global_compiler_lock, _quickly():
        module, _ = _optimised(function, symbol, arguments)
        return bytes(shared_machine().emit_object(module))


@functools.cache
def shared_machine() -> Any:
    """What writes such object files, for the processor that Numba compiles for."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name = config.CPU_NAME or llvm.get_host_cpu_name()
    features = llvm.get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES
    target_of_process = llvm.Target.from_triple(llvm.get_process_triple())
    return target_of_process.create_target_machine(cpu=name, features=features, opt=3, reloc="pic", codemodel="small")


def assembly_of(function: Callable[..., None], symbol: str, arguments: int) -> str:
    """The assembly of the same."""
    with global_compiler_lock, _quickly():
        module, codegen = _optimised(function, symbol, arguments)
        return str(codegen._tm.emit_assembly(module))


def _optimised(function: Callable[..., None], symbol: str, arguments: int) -> tuple[Any, Any]:
    flags = compiler.Flags()
    cpu_target.options.parse_as_flags(flags, _INNER)
    compiled = compiler.compile_extra(
        cpu_target.typing_context,
        cpu_target.target_context,
        function,
        (types.int64,) * arguments,
        types.none,
        flags,
        {},
        pipeline_class=_InnerCompiler,
    )
    library = compiled.library
    body = library.alone().get_function(cgutils.normalize_ir_text(compiled.fndesc.mangled_name))
    body.name = f"{symbol}_body"
    body.add_function_attribute("noinline")  # or arithmetic could move out of where its rules hold
    library.alone().link_in(llvm.parse_assembly(str(_under_ieee(symbol, arguments))))
    library._final_module = library.linked("linkonce_odr", symbol)
    library._optimize_final_module()
    for each in library._final_module.functions:
        if not each.is_declaration and each.name != symbol:
            each.linkage = "internal"  # or an object file might call the code of another
    library._final_module.verify()
    _refuse_unknown(library._final_module)
    return library._final_module, library._codegen


def _under_ieee(symbol: str, arguments: int) -> Module:
    """The entry point itself: its body, run with subnormals kept and results rounded to nearest.

    Other libraries leave threads in other states (`torch.set_flush_denormal`, XLA's threads), which is put back.
    """
    module = Module()
    module.triple = llvm.get_process_triple()
    word = llvmlite.ir.IntType(64)
    # Numba's functions write their result and error to the first two addresses: ours have neither
    form = llvmlite.ir.FunctionType(
        llvmlite.ir.IntType(32), [word.as_pointer(), word.as_pointer(), *[word] * arguments]
    )
    body = llvmlite.ir.Function(module, form, f"{symbol}_body")
    nothing = llvmlite.ir.FunctionType(llvmlite.ir.VoidType(), [word] * arguments)
    entry = llvmlite.ir.Function(module, nothing, symbol)
    builder = llvmlite.ir.IRBuilder(entry.append_basic_block())
    given = [builder.alloca(word), builder.alloca(word), *entry.args]
    if module.triple.startswith(("x86_64", "i386", "i686")):
        byte = llvmlite.ir.IntType(8).as_pointer()
        store, load = (
            llvmlite.ir.Function(
                module, llvmlite.ir.FunctionType(llvmlite.ir.VoidType(), [byte]), f"llvm.x86.sse.{name}mxcsr"
            )
            for name in ("st", "ld")
        )
        before, ours = (builder.alloca(llvmlite.ir.IntType(32)) for _ in range(2))
        builder.store(llvmlite.ir.IntType(32)(0x1F80), ours)
        builder.call(store, [builder.bitcast(before, byte)])
        builder.call(load, [builder.bitcast(ours, byte)])
        builder.call(body, given)
        builder.call(load, [builder.bitcast(before, byte)])
    elif module.triple.startswith(("aarch64", "arm64")):
        read = llvmlite.ir.FunctionType(word, [])
        write = llvmlite.ir.FunctionType(llvmlite.ir.VoidType(), [word])
        before = builder.asm(read, "mrs $0, fpcr", "=r", [], True)
        builder.asm(write, "msr fpcr, $0", "r", [word(0)], True)
        builder.call(body, given)
        builder.asm(write, "msr fpcr, $0", "r", [before], True)
    else:
        builder.call(body, given)
    builder.ret_void()
    return module


#: What machine code may call: functions that the C library has on every platform (the last one on Apple's).
_KNOWN = {"memcpy", "memmove", "memset", "sqrt", "memset_pattern16"}


def _refuse_unknown(module: Any) -> None:
    """An object file that calls anything else would end the process when it is loaded."""
    called = {each.name for each in module.functions if each.is_declaration and not each.name.startswith("llvm.")}
    if called - _KNOWN:
        raise RuntimeError(f"compiled code calls {', '.join(sorted(called - _KNOWN))}, which nobody has")


def compile_parallel(function: Callable[..., None], arguments: int) -> tuple[bytes, str]:
    """The same for a function with a `prange`, whose object file calls Numba's threads."""
    dispatcher = CPUDispatcher(function, {}, {**_INNER, "parallel": True})
    with global_compiler_lock, _quickly():
        dispatcher.compile((types.int64,) * arguments)
    (compiled,) = dispatcher.overloads.values()
    return compiled.library._get_compiled_object(), compiled.fndesc.mangled_name


#: Settings of Numba's that change machine code.
_SETTINGS = (
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "ENABLE_AVX",
    "CPU_NAME",
    "CPU_FEATURES",
    "DEBUGINFO_DEFAULT",
    "BOUNDSCHECK",
    "LLVM_REFPRUNE_PASS",
    "LLVM_REFPRUNE_FLAGS",
)


def target() -> tuple[str, ...]:
    """What machine code depends on besides its sources: the processor and Numba's settings."""
    features = "" if config.CPU_FEATURES is not None else llvm.get_host_cpu_features().flatten()
    settings = [repr(getattr(config, name, None)) for name in _SETTINGS]
    return (llvm.get_process_triple(), llvm.get_host_cpu_name(), features, llvmlite.__version__, *settings)


@functools.cache
def _engine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
    _ = cpu_target.target_context  # which lets LLVM know of Numba's C functions
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=config.USE_LLVMLITE_MEMORY_MANAGER)


#: How object files begin: ELF, Mach-O, COFF for x86-64 and for ARM.
_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\x64\x86", b"\x64\xaa")


def load_entry(code: bytes, symbol: str, *, parallel: bool = False) -> int:
    """Load an object file, and return the address of its symbol; ValueError if it is no object file."""
    if not code.startswith(_MAGIC):
        raise ValueError("no object file, which LLVM ends the process for")
    if parallel:
        _launch_threads()  # and let LLVM know of their functions
    with global_compiler_lock:
        _engine().add_object_file(llvm.ObjectFileRef.from_data(code))
        _engine().finalize_object()
        address: int = _engine().get_function_address(symbol)
    return address
