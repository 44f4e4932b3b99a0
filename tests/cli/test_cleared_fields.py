"""Optional fields that a flag sets to None."""

import json
import subprocess
import sys

import pytest

from vision_transfer.cli.flag_errors import without_cleared

SHOW = """
import json, sys
from absl import flags
from vision_transfer.cli import main
from vision_transfer.config import checked
main.define_flags()
main.parse_flags(sys.argv)
tune = checked(flags.FLAGS.config).stages["tune"]
print(json.dumps([tune.skip_from, tune.patience, tune.epochs]))
"""
SKIP = "--config.stages.tune.skip_from"


@pytest.mark.parametrize(
    ("given", "kept", "cleared"),
    [
        ([f"{SKIP}=None", "--mode=run"], ["--mode=run"], ["stages.tune.skip_from"]),
        ([f"{SKIP}=0.5", f"{SKIP}=None"], [f"{SKIP}=0.5"], ["stages.tune.skip_from"]),
        ([f"{SKIP}=None", f"{SKIP}=0.5"], [f"{SKIP}=0.5"], []),
        # A field that needs a value, one that there is not, a name that is the text None: for the flag library.
        (["--config.batch_size=None"], ["--config.batch_size=None"], []),
        (["--config.no_such=None"], ["--config.no_such=None"], []),
        (["--workdir=None"], ["--workdir=None"], []),
    ],
)
def test_the_last_flag_of_a_field_counts(given, kept, cleared):
    assert without_cleared(given) == (kept, cleared)


def test_a_flag_takes_back_what_a_config_sets():
    def values(*arguments):
        command = [sys.executable, "-c", SHOW, "--config=recommended", *arguments]
        return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    skip, _, epochs = values()
    assert skip == 0.98
    assert values(f"{SKIP}=None", "--config.stages.tune.patience=None") == [None, None, epochs]
