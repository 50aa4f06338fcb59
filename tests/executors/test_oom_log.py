"""The end of a log: what it was that the program died of."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.executors.oom import TAIL_BYTES, read_tail
from gpud.executors.oom_log import MOST_LINES_AFTER, last_word
from gpud.executors.oom_words import Sign

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"
PROGRESS = "".join(f"epoch 1 step {n} loss 0.{n} lr 1e-4\n" for n in range(200))


def traceback_of(conclusion: str, *, prefix: str = "", source: str = "loss.backward()") -> str:
    lines = [
        "Traceback (most recent call last):",
        '  File "/home/ann/train.py", line 41, in <module>',
        f"    {source}",
        "    ^^^^^^^^^^^^^^^",
        '  File "/opt/torch/nn/modules/module.py", line 889, in _call_impl',
        "    return forward_call(*args, **kwargs)",
        conclusion,
    ]
    return "".join(f"{prefix}{line}\n" for line in lines)


def after(lines: int) -> str:
    return "".join(f"step {n}\n" for n in range(lines))


TORCHRUN = """\
W1128 07:42:14.609000 17676 torch/distributed/elastic/multiprocessing/api.py:897] Sending process \
17776 closing signal SIGTERM
E1128 07:42:15.588000 17676 torch/distributed/elastic/multiprocessing/api.py:869] failed \
(exitcode: CODE) local_rank: 1 (pid: 17774) of binary: /opt/conda/bin/python3.11
""" + traceback_of("torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ")
TORCHRUN += """\
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2024-11-28_07:42:14
  rank      : 1 (local_rank: 1)
  exitcode  : CODE (pid: 17774)
  error_file: <N/A>
============================================================
"""

NCCL_OF_A_PEER = traceback_of(
    "[rank1]: torch.distributed.DistBackendError: NCCL error: remote process exited", prefix=""
)

RICH = """\
╭───────────────── Traceback (most recent call last) ─────────────────╮
│ /home/ann/train.py:12 in <module>                                   │
│                                                                     │
│ ❱ 12     raise torch.cuda.OutOfMemoryError("CUDA out of memory")    │
╰─────────────────────────────────────────────────────────────────────╯
"""

LLAMA = """\
load_tensors: loading model tensors, this can take a while... (mmap = true)
ggml_backend_cuda_buffer_type_alloc_buffer: allocating 35533.34 MiB on device 0: cudaMalloc \
failed: out of memory
alloc_tensor_range: failed to allocate CUDA0 buffer of size 37259374592
llama_model_load: error loading model: unable to allocate CUDA0 buffer
llama_init_from_gpt_params: error: failed to load model
main: error: unable to load model
"""

CPP = """\
terminate called after throwing an instance of 'c10::OutOfMemoryError'
  what():  CUDA out of memory. Tried to allocate 20.00 MiB
Exception raised from malloc at CUDACachingAllocator.cpp:1438 (most recent call first):
""" + "".join(f"frame #{n}: <unknown function> + 0x50{n} (0x7f in libc10.so)\n" for n in range(90))

BAD_ALLOC = """\
terminate called after throwing an instance of 'std::bad_alloc'
  what():  std::bad_alloc
Aborted (core dumped)
"""

VLLM = "".join(
    f"(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] {line}\n"
    for line in traceback_of("ValueError: No available memory for the cache blocks.").splitlines()
) + traceback_of("RuntimeError: Engine core initialization failed. See root cause above.")

WANDB = "wandb: \nwandb: Run history:\n" + "wandb:     loss ▁▂▃▄▅\n" * 60

CHAIN = "\nDuring handling of the above exception, another exception occurred:\n\n"
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"

INTERLEAVED = "\n".join(
    line
    for pair in zip(
        traceback_of(OOM, prefix="[rank0]: ").splitlines(),
        traceback_of(OOM, prefix="[rank1]: ").splitlines(),
        strict=True,
    )
    for line in pair
)

JAX = traceback_of(
    "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to "
    "allocate 6291456 bytes."
) + ("BufferAssignment OOM Debugging.\nPeak buffers:\n" + "\tBuffer 1:\n\t\tSize: 6.00MiB\n" * 60)

TF_ON_CPU = traceback_of(
    "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error:"
) + (
    "\nDetected at node conv2d defined at (most recent call last):\n"
    "OOM when allocating tensor with shape[64,2016] and type float on /job:localhost/replica:0/"
    "task:0/device:CPU:0 by allocator cpu\n"
    "\t [[{{node conv2d}}]] [Op:__inference_train]\n"
)

OUT_OF_MEMORY = {
    "torch": (traceback_of(OOM), "cuda"),
    "after much progress": (PROGRESS + traceback_of(OOM), "cuda"),
    "after a progress bar": ("  0%|     | 0/100 [00:00<?, ?it/s]" + traceback_of(OOM), "cuda"),
    "over a progress bar": ("".join(f"\r {n}%|##" for n in range(99)) + "\r" + OOM, "cuda"),
    "coloured": (f"\x1b[31m{OOM}\x1b[0m\n", "cuda"),
    "windows lines": (traceback_of(OOM).replace("\n", "\r\n"), "cuda"),
    "rank prefix": (traceback_of(OOM, prefix="[rank3]: "), "cuda"),
    "interleaved ranks": (INTERLEAVED, "cuda"),
    "torchrun": (traceback_of(OOM, prefix="[rank1]: ") + TORCHRUN.replace("CODE", "1"), "cuda"),
    "a peer's NCCL error": (traceback_of(OOM, prefix="[rank0]: ") + NCCL_OF_A_PEER, "cuda"),
    "rich": (RICH + "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n", "cuda"),
    "log prefix": ("2025-01-01 10:00:00 ERROR root: " + traceback_of(OOM), "cuda"),
    "llama.cpp": (LLAMA, "cuda"),
    "c++ with frames": (CPP, "cuda"),
    "vllm": (VLLM, "cuda"),
    "jax": (JAX, "cuda"),
    "wandb's farewell": (traceback_of(OOM) + WANDB, "cuda"),
    "failed while handling it": (traceback_of(OOM) + CHAIN + traceback_of("KeyError: 'x'"), "cuda"),
    "wrapped": (traceback_of(OOM) + CAUSE + traceback_of("my.TrainingFailed: oops"), "cuda"),
    "wrapped, one process of many": (
        traceback_of(OOM, prefix="[rank0]: ")
        + CHAIN
        + traceback_of("my.TrainingFailed: oops", prefix="[rank0]: "),
        "cuda",
    ),
    "an exception that was ignored": (
        traceback_of(OOM)
        + "Exception ignored in: <function Pool.__del__ at 0x7f>\n"
        + traceback_of("AttributeError: 'NoneType' object has no attribute 'x'"),
        "cuda",
    ),
    "python on the host": (traceback_of("MemoryError"), "host"),
    "c++ on the host": (
        BAD_ALLOC,
        "host",
    ),
    "tensorflow on the host": (TF_ON_CPU, "host"),
    "a worker's": (
        traceback_of("RuntimeError: Caught MemoryError in DataLoader worker process 0.")
        + "Original "
        + traceback_of("MemoryError"),
        "host",
    ),
    "first the host, then a GPU": (traceback_of("MemoryError") + traceback_of(OOM), "cuda"),
    "shell": ("/home/ann/run.sh: line 2: 31 Killed      python3 train.py\n", "killed"),
    "said what of, then killed": (traceback_of(OOM) + TORCHRUN.replace("CODE", "-9"), "cuda"),
    "torchrun, killed": (TORCHRUN.replace("CODE", "-9"), "killed"),
}

ANOTHER_REASON = {
    "nothing": "",
    "progress": PROGRESS,
    "only the word": "loss 3.1 oom 0\nmemory 11 GiB\nTraceback\n",
    "another error": traceback_of("KeyError: 'loss'"),
    "caught, then another error": f"skipped: {OOM}\n{PROGRESS}" + traceback_of("KeyError: 'loss'"),
    "caught just before": f"skipped: {OOM}\n" + traceback_of("KeyError: 'loss'"),
    "caught and printed": traceback_of(OOM) + "retrying\n" + traceback_of("KeyError: 'loss'"),
    "in a frame's source": traceback_of(
        "KeyError: 'loss'", source="except torch.cuda.OutOfMemoryError as error:  # CUDA error"
    ),
    "in rich's frames": RICH + "KeyError: 'loss'\n",
    "an error of no usual name": traceback_of(OOM) + "retry\n" + traceback_of("queue.Empty"),
    "it went on": traceback_of(OOM) + after(MOST_LINES_AFTER + 1),
    "a warning": "WARNING: CUDA out of memory, batch skipped\nexit\n",
    "disk": traceback_of(OOM) + "cp: cannot write 'a': No space left on device\n",
    "ignored first, then for real": (
        traceback_of(OOM)
        + "Exception ignored in: <stdout>\nBrokenPipeError: [Errno 32] Broken pipe\n"
        + "KeyError: 'a'\n"
        + traceback_of("ValueError: b")
    ),
}


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_out_of_memory_is_recognised(name: str) -> None:
    text, sign = OUT_OF_MEMORY[name]
    assert last_word(text.encode()[-TAIL_BYTES:]) == sign


@pytest.mark.parametrize("name", ANOTHER_REASON)
def test_what_ended_for_another_reason_is_not(name: str) -> None:
    assert last_word(ANOTHER_REASON[name].encode()) is Sign.NOTHING


def test_a_few_words_after_it_do_not_matter() -> None:
    assert last_word((traceback_of(OOM) + after(MOST_LINES_AFTER)).encode()) is Sign.CUDA


def test_an_endless_line_counts_by_its_end() -> None:
    dots = b"." * TAIL_BYTES
    assert last_word((dots + OOM.encode())[-TAIL_BYTES:]) is Sign.CUDA
    assert last_word(OOM.encode() + dots[5000:]) is Sign.CUDA  # an exception with a long message
    assert last_word(dots[5000:] + OOM.encode() + dots[5000:]) is Sign.NOTHING


@given(data=st.binary(max_size=300), text=st.sampled_from([*OUT_OF_MEMORY.values()]))
def test_any_bytes_before_it_and_it_is_still_seen(data: bytes, text: tuple[str, str]) -> None:
    assert last_word(data + b"\n" + text[0].encode()) == text[1]


@given(data=st.binary(max_size=2000))
def test_any_bytes_are_a_log(data: bytes) -> None:
    assert last_word(data) in set(Sign)


@pytest.mark.parametrize(
    "piece",
    [
        b"a", b" ", b"_", b"a.", b"Error", b"cuda out of memory ", b"Traceback (most recent call ",
        b"Traceback (most recent call last):\n", b"[0]: Traceback (most recent call last):\n",
        b"RESOURCE_EXHAUSTED: ", b"CUDNN_STATUS_", b"ALLOC_", b"\x1b[", b"File \"", b"\r", b"\n",
        b"OOM when allocating tensor", b"  File \"a\", line 1\n    x\n", b"exitcode: -9 ", b"oom\n",
        b"failed to allocate ", b"WARNING oom\n", b"MemoryError", b"Killed", b"cupy", b"] ",
    ],
)  # fmt: skip
def test_no_log_takes_long(piece: bytes) -> None:
    tail = (b"oom\n" + piece * TAIL_BYTES)[:TAIL_BYTES]
    before = time.thread_time()
    last_word(tail)
    assert time.thread_time() - before < 0.5  # some ms; what backtracks without end takes minutes


# ---- the file


def test_the_last_of_a_file_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"")
    assert read_tail(str(log)) == b""
    log.write_bytes(b"short")
    assert read_tail(str(log)) == b"short"
    log.write_bytes(b"x" * TAIL_BYTES + b"end")
    assert read_tail(str(log)) == (b"x" * TAIL_BYTES + b"end")[-TAIL_BYTES:]


def test_a_huge_log_costs_no_more(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(1 << 40)  # a hole
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + OOM.encode())
    assert last_word(read_tail(str(log))) is Sign.CUDA


def test_what_is_no_log_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    (tmp_path / "real").write_text(OOM)
    (tmp_path / "link").symlink_to("real")
    for name in ("missing", "fifo", "dir", "link", "real/x"):
        assert read_tail(str(tmp_path / name)) == b""


def test_a_binary_log_is_read(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(1 << 16)
    (tmp_path / "log").write_bytes(noise + b"\n" + OOM.encode() + b"\n")
    assert last_word(read_tail(str(tmp_path / "log"))) is Sign.CUDA
