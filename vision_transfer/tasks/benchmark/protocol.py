"""The protocol of a worker, a process that measures: it answers lines of JSON on its standard input and output.

This module imports only the standard library, since interpreters without this package's dependencies run it too.
The first line is the request; the reply to it means that all is compiled and warm. Then `{"run": N}` runs the work N
times and replies `{"seconds": …}` for all N together, and `{"end": true}` replies the peak memory and ends. Work that
needs more memory than the device has is replied to with `{"out_of_memory": REASON}`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from vision_transfer.errors import is_out_of_memory
from vision_transfer.runtime.timer import process_peak_bytes

REASON_LENGTH = 200
# What runs the work N times, facts for the first reply, and facts for the last.
Work = tuple[Callable[[int], None], dict[str, Any], Callable[[], dict[str, Any]]]


def serve(build: Callable[[dict[str, Any]], Work]) -> None:
    """Answers one request until its end; `build` builds, compiles and warms up the work of a request.

    Standard output of libraries goes to standard error, which keeps the replies separate.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def reply(values: dict[str, Any]) -> None:
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    try:
        run, facts, last_facts = build(json.loads(sys.stdin.readline()))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reply({"out_of_memory": str(error)[:REASON_LENGTH]})
        return
    reply(facts)
    for line in sys.stdin:
        command = json.loads(line)
        if "end" in command:
            break
        began = time.perf_counter()
        run(command["run"])
        reply({"seconds": time.perf_counter() - began})
    reply({"peak_memory_bytes": process_peak_bytes(), **last_facts()})
