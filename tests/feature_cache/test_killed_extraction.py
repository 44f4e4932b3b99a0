"""An extraction whose process is killed: finished shards are not computed again."""

import signal
import subprocess
import sys

KILLED = """
import os, signal, sys
from pathlib import Path
import io, jax, numpy as np
from jax.sharding import Mesh
from rich.console import Console
from vision_transfer.runtime.devices import BATCH_AXIS
from vision_transfer.feature_cache import Prefix, extraction, features
from vision_transfer.models.layers import Dense, Flatten, MaxPool
from vision_transfer.models.network import Network
from vision_transfer.runtime.console import Screen

class Images:
    shape, dtype, taken = (12, 8, 8, 3), np.dtype(np.uint8), 0

    def __getitem__(self, rows):
        self.taken += 1
        if sys.argv[2] == "die" and self.taken == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        print(self.taken, flush=True)
        return np.stack([np.full(self.shape[1:], row, np.uint8) for row in rows])

extraction.SHARD_BYTES = 1
network = Network((MaxPool("pool"),), (Flatten("flatten"), Dense("logits", 1)), (8, 8, 3))
mesh = Mesh(np.array(jax.local_devices()[:1]), (BATCH_AXIS,))
prefix = Prefix(network, {"params": {}, "batch_stats": {}}, mesh, 2, Path(sys.argv[1]))
digests = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
rows = features(prefix, "pool", Images(), digests, Screen(Console(file=io.StringIO())))
print(rows[np.arange(12)][:, 0, 0, 0].tolist())
"""


def test_a_killed_process_keeps_its_shards(tmp_path):
    killed, resumed = (
        subprocess.run([sys.executable, "-c", KILLED, tmp_path, end], capture_output=True, text=True, timeout=300)
        for end in ("die", "live")
    )
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.split() == ["1", "2", "3", "4"]
    # Six batches of two images: three were whole when the fifth was read, since the fourth was still being computed.
    *batches, values = resumed.stdout.splitlines()
    assert batches == ["1", "2", "3"]
    assert values == str([float(row) for row in range(12)])
