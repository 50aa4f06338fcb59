"""One line of a log at a time: what it stands for. The texts are in the style of each framework."""

from __future__ import annotations

import pytest

from gpud.executors.oom_words import Sign, sign_of

CUDA = """\
torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.70 GiB. GPU 0 has a ...
torch.OutOfMemoryError: HIP out of memory. Tried to allocate 3.31 GiB.
RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 3; 7.93 GiB total capacity
[rank5]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
RuntimeError: CUDA error: out of memory
RuntimeError: CUDA driver error: out of memory
RuntimeError: XPU out of memory. Tried to allocate 1.71 GiB (GPU 0; 15.56 GiB total capacity
RuntimeError: MPS backend out of memory (MPS allocated: 9.57 GiB)
RuntimeError: cuda runtime error (2) : out of memory at /pytorch/aten/src/THC/THCStorage.cu:58
THCudaCheck FAIL file=/pytorch/THC/generic/THCStorage.cu line=58 error=2 : out of memory
RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`
RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED
cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
RuntimeError: cuFFT error: CUFFT_ALLOC_FAILED
cusolver error: CUSOLVER_STATUS_ALLOC_FAILED
node7:301:604 [3] include/alloc.h:178 NCCL WARN Cuda failure 2 'out of memory'
Cuda failure 'out of memory'
jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate \
4770354232 bytes.
jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Failed to allocate request for 176.00MiB \
(184549376B) on device ordinal 0
RuntimeError: Resource exhausted: Out of memory while trying to allocate 14285187448 bytes.
RuntimeError: Internal: Failed to load in-memory CUBIN: CUDA_ERROR_OUT_OF_MEMORY
tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error:
OOM when allocating tensor with shape[16,112,112,147] and type float on \
/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc [Op:Conv2D]
Out of memory error on GPU 0. Cannot allocate 98.000244MB memory on GPU 0, 6.0GB memory has
onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException: [ONNXRuntimeError] : 6 : \
RUNTIME_EXCEPTION : Status Message: bfc_arena.cc:376 void* \
onnxruntime::BFCArena::AllocateRawInternal() Failed to allocate memory for requested buffer of \
size 2830172160
[E] [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)
[E] [TRT] safeRuntime.cpp (25) - Cuda Error in allocate: 2 (out of memory)
ggml_backend_cuda_buffer_type_alloc_buffer: allocating 35533.34 MiB on device 0: cudaMalloc \
failed: out of memory
llama_model_load: error loading model: unable to allocate CUDA0 buffer
ggml_gallocr_reserve_n: failed to allocate ROCm1 buffer of size 150995968
CUDA error 2 at ggml-cuda.cu:5509: out of memory
cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 25,600,000 bytes (allocated so far: \
3,635,267,072 bytes).
numba.cuda.cudadrv.driver.CudaAPIError: [2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY
  what():  std::bad_alloc: cudaErrorMemoryAllocation: out of memory
MemoryError: std::bad_alloc: out_of_memory: CUDA error at: cuda_memory_resource.hpp:70: \
cudaErrorMemoryAllocation out of memory
terminate called after throwing an instance of 'rmm::out_of_memory'
xgboost.core.XGBoostError: Memory allocation error on worker 0: std::bad_alloc: \
cudaErrorMemoryAllocation: out of memory
GPUassert: out of memory stencil.cu 33
Error: out of memory
ERROR: Out of GPU memory trying to allocate 7.451 GiB
Error out of memory at line 380 in file /src/csrc/pythonInterface.c
vk::Device::allocateMemory: ErrorOutOfDeviceMemory
ERROR 03-24 04:04:18 [core.py:708] ValueError: No available memory for the cache blocks. Try
ValueError: Free memory on device cuda:0 (3.22/4.0 GiB) on startup is less than desired GPU \
memory utilization (0.9, 3.6 GiB).
RuntimeError: HIP error: out of memory
hipErrorOutOfMemory
[cuvid @ 0x55] cuvidCreateDecoder(&decoder, &params) failed -> CUDA_ERROR_OUT_OF_MEMORY: out of \
memory
""".splitlines()

HOST = """\
MemoryError
MemoryError: Unable to allocate 201. GiB for an array with shape (2999, 2999, 2999)
numpy.core._exceptions._ArrayMemoryError: Unable to allocate 58.0 GiB for an array with shape
[rank0]: MemoryError
RuntimeError: Caught MemoryError in DataLoader worker process 0.
pyarrow.lib.ArrowMemoryError: malloc of size 4294967296 failed
OSError: [Errno 12] Cannot allocate memory
/bin/sh: 1: Cannot fork: Cannot allocate memory
RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate \
memory: you tried to allocate 3077222400 bytes. Error code 12 (Cannot allocate memory)
RuntimeError: [enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: \
you tried to allocate 31850496000 bytes.
  what():  std::bad_alloc
OOM when allocating tensor with shape[100,4096] and type float on \
/job:localhost/replica:0/task:0/device:CPU:0 by allocator cpu
slurmstepd: error: Detected 1 oom-kill event(s) in StepId=191.batch cgroup. Some of your
slurmstepd: error: Detected 1 oom_kill event in StepId=11300781.0. Some of the step tasks
srun: error: node7: task 0: Out Of Memory
Out of memory: Killed process 1234 (python) total-vm:1kB
Exception in thread "main" java.lang.OutOfMemoryError: Java heap space
memory allocation of 34359738368 bytes failed
fatal error: runtime: out of memory
FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory
Error: cannot allocate vector of size 3.7 Gb
ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.
ERROR: LoadError: OutOfMemoryError()
cc1plus: out of memory allocating 65536 bytes: virtual memory exhausted
""".splitlines()

KILLED = """\
Killed
/home/ann/run.sh: line 28:  8156 Killed                  python3 main.py --epochs 400
RuntimeError: DataLoader worker (pid 27351) is killed by signal: Killed.
ERROR:torch.distributed.elastic.multiprocessing.api:failed (exitcode: -9) local_rank: 0
[ERROR] [launch.py:434:sigkill_handler] ['/usr/bin/python3', 'a.py'] exits with return code = -9
subprocess.CalledProcessError: Command '['python', 'a.py']' died with <Signals.SIGKILL: 9>.
concurrent.futures.process.BrokenProcessPool: A process in the process pool was terminated \
abruptly while the future was running or pending.
The exit codes of the workers are {SIGKILL(-9)}
mpirun noticed that process rank 3 exited on signal 9 (Killed).
""".splitlines()

OTHER = """\
KeyError: 'loss'
[rank0]: ValueError: shapes do not match
RuntimeError: CUDA error: an illegal memory access was encountered
RuntimeError: CUDA error: device-side assert triggered
AssertionError
OSError: [Errno 28] No space left on device
cp: error writing 'x': No space left on device
/bin/sh: 1: nvidia-smo: not found
MemoryErrorBudgetError: too many
RuntimeError: out of range
""".splitlines()

ASIDE = """\
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
subprocess.CalledProcessError: Command '['a']' returned non-zero exit status 1.
torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1197, remote process
ConnectionResetError: [Errno 104] Connection reset by peer
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
RuntimeError: DataLoader worker (pid(s) 123) exited unexpectedly
KeyboardInterrupt
RuntimeError: [gloo/transport/tcp/pair.cc:598] Connection closed by peer [10.0.0.1]:1234
""".splitlines()

NOTHING = """\

epoch 3  loss 0.312  mem 11.2 GiB  oom 0
peak memory allocated: 11.9 GiB
| WARNING: ran out of memory with exception: CUDA out of memory. Tried to allocate 20.00 MiB
2021-08-02 18:54:21 | WARNING | fairseq.trainer | OOM: Ran out of memory with exception: CUDA out \
of memory. Tried to allocate 68.00 MiB
2020-09-24 21:35:23.363348: W tensorflow/core/common_runtime/bfc_allocator.cc:246] Allocator \
(GPU_0_bfc) ran out of memory trying to allocate 1.02GiB with freed_by_count=0. The caller \
indicates that this is not a failure, but may mean that there could be performance gains
2025-03-17 17:48:09.8: I tensorflow/stream_executor/cuda/cuda_driver.cc:739] failed to allocate \
2.12G (2282521344 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory
E0000 00:00:17 cuda_executor.cc:1] failed to allocate 2.00GiB (2147483648 bytes) from device: \
RESOURCE_EXHAUSTED: : CUDA_ERROR_OUT_OF_MEMORY: out of memory
[W CUDAGuardImpl.h:113] Warning: CUDA warning: out of memory (function destroyEvent)
grpc: RESOURCE_EXHAUSTED: Received message larger than max (5 vs. 4)
see https://docs.example/oom.html on running out of memory
INFO retrying after MemoryError
Killing subprocess 13266
Killed 3 zombies and took the castle
""".splitlines()


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        (line, sign)
        for sign, lines in [
            (Sign.CUDA, CUDA), (Sign.HOST, HOST), (Sign.KILLED, KILLED), (Sign.OTHER, OTHER),
            (Sign.ASIDE, ASIDE), (Sign.NOTHING, NOTHING),
        ]
        for line in lines
    ],
)  # fmt: skip
def test_what_a_line_stands_for(line: str, sign: Sign) -> None:
    assert sign_of(line.encode()) is sign


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ("zmq.error.Again: Resource temporarily unavailable", Sign.OTHER),
        ("my.module.Stopped", Sign.OTHER),
        ("torch.OutOfMemoryError: CUDA out of memory (INFO: batch 3)", Sign.CUDA),
        ("Exception: ", Sign.ASIDE),
    ],
)
def test_what_concludes_a_traceback_is_an_error_whatever_its_name(line: str, sign: Sign) -> None:
    assert sign_of(line.encode(), concluding=True) is sign
