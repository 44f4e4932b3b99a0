"""How a process that measures talks to the one that asked: lines of JSON on standard input and output.

Only the standard library is imported here, since interpreters without this package's dependencies run it too.
The first line is the request. The reply to it says that all is compiled and warm. Then `{"run": N}` runs the work N
times and replies `{"seconds": …}` of all N together, and `{"end": true}` replies the peak memory and ends.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

KILOBYTE = 1024

# Builds and compiles the work of a request: returns what runs it N times, facts for the reply, facts for the end.
Build = Callable[[dict[str, Any]], tuple[Callable[[int], None], dict[str, Any], Callable[[], dict[str, Any]]]]


def serve(build: Build) -> None:
    """Answers one request until its end.

    What libraries print on standard output goes to standard error, so that replies stay apart.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def reply(values: dict[str, Any]) -> None:
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    run, facts, last_facts = build(json.loads(sys.stdin.readline()))
    reply(facts)
    for line in sys.stdin:
        command = json.loads(line)
        if "end" in command:
            break
        began = time.perf_counter()
        run(command["run"])
        reply({"seconds": time.perf_counter() - began})
    reply({"peak_memory_bytes": peak_memory_bytes(), **last_facts()})


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far, on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE
