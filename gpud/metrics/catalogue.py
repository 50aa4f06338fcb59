"""Every metric there is: name, type, labels, meaning. docs/metrics.md is held against it by a test.

Used by metrics/counting.py and metrics/reading.py. Units are base units (seconds, bytes, ratios
from 0 to 1), names as Prometheus has them. Nothing in here, and no label, names a job, a command,
an environment, a path or a person.
"""

from __future__ import annotations

from gpud.metrics.text import Family

WAITS_S = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0, 604800.0)
STARTS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
RUNS_S = (0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0)
COMMITS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

# -- gpud itself

BUILD = Family("gpud_build_info", "gauge", "1; the label says which gpud this is.", ("version",))
START_TIME = Family(
    "gpud_start_time_seconds", "gauge", "When this gpud was started (Unix time).", unit="seconds"
)
DRAINING = Family("gpud_draining", "gauge", "1 while nothing new starts (gpuctl drain).")
STORAGE_PROBLEM = Family(
    "gpud_storage_problem", "gauge", "1 while the database cannot be written: nothing is taken."
)
RUNNER_PROBLEM = Family(
    "gpud_runner_problem", "gauge", "1 while the runner cannot be reached: nothing starts."
)
SHORTAGE = Family(
    "gpud_start_shortage", "gauge", "1 since a start failed for want of memory or the like."
)
PROBLEMS = Family("gpud_problems", "gauge", "How many problems gpuctl status tells of.")
SET_ASIDE = Family("gpud_jobs_set_aside", "gauge", "Jobs at which gpud has crashed three times.")
COMMIT = Family(
    "gpud_commit_seconds", "histogram", "How long a commit to the database took.",
    unit="seconds", bounds=COMMITS_S,
)  # fmt: skip

# -- the queue

JOBS = Family("gpud_jobs", "gauge", "Jobs that are not done, by state.", ("state",))
DONE = Family(
    "gpud_jobs_done", "gauge", "Jobs in the database that are done, by outcome.", ("outcome",)
)
OLDEST = Family(
    "gpud_queue_oldest_seconds", "gauge",
    "For how long the oldest job has waited that only needs room, on GPUs or in the lane cpu; of "
    "jobs that ask for the same the first counts.",
    ("kind",), "seconds",
)  # fmt: skip
SUBMITTED = Family("gpud_jobs_submitted", "counter", "Jobs that were accepted, from anywhere.")
ENDED = Family("gpud_jobs_ended", "counter", "Jobs that were done, by outcome.", ("outcome",))
WAIT = Family(
    "gpud_job_wait_seconds", "histogram", "From the submit of a job to its start, at once or not.",
    unit="seconds", bounds=WAITS_S,
)  # fmt: skip

# -- attempts

ATTEMPTS = Family("gpud_attempts", "gauge", "Live attempts, by phase.", ("phase",))
STARTED = Family("gpud_attempts_started", "counter", "Attempts whose process was started.")
ATTEMPTS_ENDED = Family(
    "gpud_attempts_ended", "counter", "Attempts that ended, by outcome.", ("outcome",)
)
RETRIED = Family(
    "gpud_attempts_retried", "counter", "Attempts that ended and whose job is tried again."
)
START = Family(
    "gpud_attempt_start_seconds", "histogram", "From the decision to start to the process.",
    unit="seconds", bounds=STARTS_S,
)  # fmt: skip
RUN = Family(
    "gpud_attempt_run_seconds", "histogram",
    "From the start of a process until all of it was gone, pauses included.",
    unit="seconds", bounds=RUNS_S,
)  # fmt: skip

# -- slots and GPUs

SLOTS = Family("gpud_slots", "gauge", "Slots of the pool, on GPUs and in the lane cpu.", ("kind",))
SLOTS_USED = Family(
    "gpud_slots_used", "gauge", "Slots that are leased; a share of one counts as such.", ("kind",)
)
SLOTS_FREE = Family(
    "gpud_slots_free", "gauge", "Slots that are not leased, on devices that take work now.",
    ("kind",),
)  # fmt: skip
LEASED = Family(
    "gpud_device_leased_ratio", "gauge", "How much of a device is leased, from 0 to 1.",
    ("device",), unit="ratio",
)  # fmt: skip
PROMISED = Family(
    "gpud_device_promised_bytes", "gauge", "Memory on each of its GPUs that jobs were promised.",
    ("device",), unit="bytes",
)  # fmt: skip
TAKES_WORK = Family(
    "gpud_device_takes_work", "gauge",
    "0 while a device takes no work: gpuctl gpus says why.", ("device",),
)  # fmt: skip
QUARANTINED = Family(
    "gpud_device_quarantined", "gauge", "1 for a device that is set aside as broken.", ("device",)
)
GPU = Family(
    "gpud_gpu_info", "gauge", "1; the labels say what GPU this is.", ("device", "uuid", "model")
)
GPU_MEMORY = Family(
    "gpud_gpu_memory_bytes", "gauge", "Memory of a GPU, as last seen.", ("device", "uuid"), "bytes"
)
GPU_MEMORY_USED = Family(
    "gpud_gpu_memory_used_bytes", "gauge", "Memory in use on a GPU, by whomever, as last seen.",
    ("device", "uuid"), "bytes",
)  # fmt: skip
GPU_UTILIZATION = Family(
    "gpud_gpu_utilization_ratio", "gauge", "How busy a GPU was when last seen, from 0 to 1.",
    ("device", "uuid"), "ratio",
)  # fmt: skip
GPU_TEMPERATURE = Family(
    "gpud_gpu_temperature_celsius", "gauge", "Temperature of a GPU, as last seen.",
    ("device", "uuid"), "celsius",
)  # fmt: skip
GPU_POWER = Family(
    "gpud_gpu_power_watts", "gauge", "What a GPU takes, as last seen.", ("device", "uuid"), "watts"
)
GPU_ENERGY = Family(
    "gpud_gpu_energy_joules", "counter",
    "What a GPU has taken since its driver was loaded, as last seen.",
    ("device", "uuid"), "joules",
)  # fmt: skip
GPU_SEEN = Family(
    "gpud_gpu_seen_timestamp_seconds", "gauge", "When a GPU was last looked at (Unix time).",
    ("device", "uuid"), "seconds",
)  # fmt: skip

# -- sources

SOURCE = Family(
    "gpud_source_info", "gauge", "1; the labels say of what kind it is.", ("source", "kind")
)
SOURCE_UP = Family("gpud_source_up", "gauge", "0 while a source has a problem.", ("source",))
SOURCE_STOPPED = Family(
    "gpud_source_stopped", "gauge", "1 while somebody has stopped a source.", ("source",)
)
SOURCE_TAKEN = Family(
    "gpud_source_taken", "counter", "Entries taken from a source since ever.", ("source",)
)
SOURCE_WAITING = Family(
    "gpud_source_waiting", "gauge", "Jobs of a source that are not done.", ("source",)
)
SOURCE_READ = Family(
    "gpud_source_read_timestamp_seconds", "gauge", "When a source was last read (Unix time).",
    ("source",), "seconds",
)  # fmt: skip

FAMILIES: tuple[Family, ...] = tuple(
    item for item in list(globals().values()) if isinstance(item, Family)
)
