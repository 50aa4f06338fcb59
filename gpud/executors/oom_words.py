"""How programs say that they ran out of memory: what one line of a log stands for.

Used by executors/oom_log.py, which knows where in the log a line stands. The wordings are those of
the frameworks' own sources and issue lists; each group names whose they are. Bytes, for a log is
whatever a program wrote. Pure.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Sign(StrEnum):
    NOTHING = ""
    CUDA = "cuda"  # out of GPU memory, whoever made the GPU
    HOST = "host"  # out of RAM
    KILLED = "killed"  # a process died of SIGKILL: the kernel may know why
    OTHER = "other"  # another error
    ASIDE = "aside"  # an error that only follows from one that stands before it


OF_MEMORY = frozenset({Sign.CUDA, Sign.HOST, Sign.KILLED})

# Without one of these (in lower case), a line says nothing of memory. Looked for first: plain
# strings are found ten times as fast as the patterns below.
KEYS = (
    b"of memory", b"of_memory", b"ofmemory", b"memoryerror", b"of gpu memory", b"ofgpumemory",
    b"bad_alloc", b"to allocate", b"allocate memory", b"allocate vector", b"xmalloc", b"xrealloc",
    b"memoryallocation", b"memory allocation of", b"ation_fail", b"alloc_fail",
    b"not enough memory", b"exhausted", b"oom when", b"oom-kill", b"oom_kill", b"oom kill",
    b"oomkill", b"ofdevicememory", b"of_device_memory", b"object_allocation", b"available memory",
    b"memory on device", b"killed", b"sigkill", b"signal 9", b": -9", b"= -9",
    b"terminated abruptly",
)  # fmt: skip


def _any(*patterns: bytes, flags: int = 0) -> re.Pattern[bytes]:
    return re.compile(b"|".join(patterns), flags)


_BOL = rb"(?:^|[\]):|>] )"  # where an exception's name begins: at the start, or after a prefix

_CUDA = _any(
    # PyTorch; libraries that pass its message on
    rb"torch\.(?:cuda\.)?OutOfMemoryError",
    rb"\b(?:CUDA|HIP|XPU|NPU|MPS backend|GPU) (?:is |ran )?out of memory",
    # the drivers, the runtimes and their libraries, by the name of the error
    rb"\b(?:CUDA|HIP)_ERROR_OUT_?OF_?MEMORY",
    rb"\bcudaErrorMemoryAllocation\b",
    rb"\berror: out of memory\b",  # the runtime's own words for it
    rb"\bhipError(?:OutOfMemory|MemoryAllocation)\b",
    rb"\b(?:CU|HIP|ROC|MI)[A-Z]{2,8}_(?:STATUS_)?(?:\w{1,40}_)?ALLOC(?:ATION)?_FAILED",
    rb"\b(?:VK_ERROR_OUT_OF_DEVICE_MEMORY|ErrorOutOfDeviceMemory|CL_MEM_OBJECT_ALLOCATION_FAILURE)",
    # JAX, XLA, TensorFlow, Paddle
    rb"\bRESOURCE[_ ]EXHAUSTED: .{0,60}?(?:memory|OOM|allocate)",
    rb"\bResourceExhaustedError\b",
    rb"\bOOM when allocating tensor",
    rb"\bOut of memory error on GPU",
    # ONNX Runtime (its arena), TensorRT, RAPIDS (RMM), CuPy, Julia, bitsandbytes, llama.cpp, vLLM
    rb"\bFailed to allocate memory for requested buffer of size",
    rb"\bError Code \d+: OutOfMemory",
    rb"\brmm::(?:out_of_memory|bad_alloc)|\bRMM_ERROR_OUT_OF_MEMORY|out_of_memory: (?:CUDA|RMM)",
    rb"\bcupy\S{0,60}OutOfMemoryError",
    rb"\bOut of GPU memory|\bOutOfGPUMemoryError",
    rb"^Error out of memory at line \d",
    rb"\bto allocate (?:CUDA|ROCm|HIP|Vulkan|SYCL)\d* buffer",
    rb"\bNo available memory for the cache blocks",
    rb"\bFree memory on device .{0,60}is less than desired GPU memory",
    flags=re.IGNORECASE,
)

# CUDA error 2 at ggml-cuda.cu:359: out of memory; Cuda failure 2 'out of memory'; cudaMalloc
# failed: out of memory; Cuda Runtime (out of memory); GPUassert: out of memory; and so on.
_ON_A_GPU = _any(rb"cuda|nccl|gpu|rocm|vulkan|\.cu\b|\bhip[A-Z_ ]", flags=re.IGNORECASE)
_FAILED = _any(rb"error|fail|assert|runtime|driver", flags=re.IGNORECASE)

_HOST = _any(
    # Python, NumPy, Arrow, Ray; Java
    _BOL + rb"[\w.]{0,100}MemoryError\b(?:[:(]|$)",
    rb"\bCaught MemoryError in",
    rb"\bjava\.lang\.OutOfMemoryError",
    # C and C++, errno 12 in whatever language, PyTorch on the host
    rb"\bstd::bad_alloc",
    rb"\bCan(?:not|'t) allocate memory",
    rb"\bDefaultCPUAllocator: (?:can't|not enough)",
    rb"\bvirtual memory exhausted|\bmemory exhausted\b|\bx(?:m|re)alloc: cannot",
    # Rust, Go, Node, R
    rb"\bmemory allocation of \d+ bytes failed",
    rb"\bruntime: out of memory",
    rb"\bheap out of memory",
    rb"\bcannot allocate vector of size",
    # who kills for want of memory, and says so: the kernel, Slurm, Kubernetes, Ray
    rb"\bOut of memory: Killed process",
    rb"\boom[-_]kill event|\bOOM[ -]?Killed\b|(?-i:: Out Of Memory$)",
    rb"\bkilled due to (?:memory pressure|the node running low on memory)",
    # TensorFlow, when the tensor was to lie in RAM
    rb"\bOOM when allocating tensor.{0,300}?(?:device:CPU|by allocator (?:mkl)?cpu)",
    flags=re.IGNORECASE,
)

_KILLED = _any(
    rb"^Killed\s*$|: line \d+: +\d+ Killed\b|^zsh: killed ",  # a shell, of its child
    rb"\bkilled by signal: Killed",  # PyTorch's DataLoader
    rb"\bexitcode: -9\b|\breturn code = -9\b|\bsignal 9\b",  # torchrun, DeepSpeed, mpirun
    rb"<Signals\.SIGKILL|\bterminated abruptly|\bSIGKILL\(-9\)",  # subprocess, futures, joblib
)

# Said while all goes on: at these levels, or of an allocation that is tried again.
_LEVEL = _any(
    rb"(?<!NCCL )\b(?:WARN(?:ING)?|INFO|DEBUG)\b",  # NCCL calls its errors warnings
    rb"\b\w*Warning:",
    rb"^[IW]\d{4} ",
    rb"\b[IWE] (?:external|tensorflow|xla|tsl)/",
)
_TRIED_AGAIN = _any(rb"\bnot a failure\b", rb"\bfailed to allocate .{0,60}from device:")

_EXCEPTION = _any(_BOL + rb"[A-Za-z_][\w.]{0,100}(?:Error|Exception|Interrupt)(?:\(\w*\))?(?::|$)")
_NAMES = (b"Error", b"Exception", b"Interrupt")  # one of them is in what _EXCEPTION finds
_FATAL = (
    b"no space left on device", b"disk quota exceeded", b"illegal memory access",
    b"device-side assert triggered", b"uncorrectable ecc",
)  # fmt: skip
_ASIDE = _any(
    # a parent, of its child
    rb"\b(?:ChildFailedError|CalledProcessError|ProcessRaisedException|ProcessExitedException)\b",
    rb"\b(?:RayTaskError|WorkerCrashedError|RayActorError|ActorDiedError)\b",
    rb"\bSee root cause above|\bexited unexpectedly|^Exception:?\s*$",
    # a peer, of one that has gone
    rb"\b(?:Dist\w{0,20}Error|BrokenPipeError|EOFError|Connection(?:Reset|Refused|Aborted)?Error)\b",
    rb"NCCL|Gloo|\bConnection (?:reset|closed|refused)",
    # one that was told to end
    rb"\b(?:KeyboardInterrupt|SystemExit|SignalException|CancelledError)\b",
)


def sign_of(line: bytes, *, concluding: bool = False) -> Sign:
    """What a line stands for. `concluding`: it ends a traceback, so it names an exception."""
    low = line.lower()
    if any(key in low for key in KEYS):
        sign = _of_memory(line, low, concluding)
        if sign:
            return sign
    if concluding or (any(name in line for name in _NAMES) and _EXCEPTION.search(line)):
        return Sign.ASIDE if _ASIDE.search(line) else Sign.OTHER
    fatal = low.endswith(b": not found") or any(words in low for words in _FATAL)
    return Sign.OTHER if fatal else Sign.NOTHING


def _of_memory(line: bytes, low: bytes, concluding: bool) -> Sign:
    if not concluding and (_LEVEL.search(line[:100]) or _TRIED_AGAIN.search(line)):
        return Sign.NOTHING
    if b"allocating tensor" in low and _HOST.search(line):
        return Sign.HOST
    if _CUDA.search(line):
        return Sign.CUDA
    if b"out of memory" in low and _ON_A_GPU.search(line) and _FAILED.search(line):
        return Sign.CUDA
    if _HOST.search(line):
        return Sign.HOST
    return Sign.KILLED if _KILLED.search(line) else Sign.NOTHING
