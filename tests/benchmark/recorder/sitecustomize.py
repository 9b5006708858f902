"""Every Python program that runs with this folder on PYTHONPATH adds one line of JSON to $RECORDER at its end: what it cost.

The kernel counts exactly, however short a program is; Snakemake's own benchmark looks twice a second at most.
"""

import atexit
import os
import time

START = time.time()


def record() -> None:
    """Append the line: seconds of CPU in user and kernel mode, largest resident memory (MB), bytes read and written (MB)."""
    import json
    import resource
    import sys

    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    with open("/proc/self/io") as counters:
        io = {name: int(count) / 1e6 for name, _, count in (line.partition(":") for line in counters)}
    line = {
        "arguments": sys.argv,
        "wall": time.time() - START,
        "user": usage.ru_utime,
        "system": usage.ru_stime,
        "peak": peak * 1024 / 1e6,
        "read": io["rchar"],
        "written": io["wchar"],
    }
    with open(os.environ["RECORDER"], "a") as file:
        file.write(json.dumps(line) + "\n")


def record_and_leave(status: int, leave=os._exit) -> None:
    """`os._exit` calls no function at the end."""
    record()
    leave(status)


if "RECORDER" in os.environ:
    atexit.register(record)
    os._exit = record_and_leave
