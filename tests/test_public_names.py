"""`import vision_transfer as vt`: its names, which cost nothing until they are used."""

import subprocess
import sys

import vision_transfer as vt


def test_names_are_what_they_say_whatever_is_imported():
    for room in ("feature_cache.extraction", "training.loop", "tasks.train.task", "runs.load"):
        __import__(f"vision_transfer.{room}")
    for name in vt.__all__:
        found = getattr(vt, name)
        assert found.__name__ == name and found.__module__.startswith("vision_transfer.")
    assert set(vt.__all__) <= set(dir(vt))


def test_the_package_imports_nothing_before_a_name_is_used():
    code = "import sys, vision_transfer; print(sorted({'jax', 'numpy', 'pandas', 'absl'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
