"""Runs an experiment from a checkout, as `vision-transfer` does anywhere: `python launch.py --config=finetune`."""

from vision_transfer.__main__ import run

if __name__ == "__main__":
    run()
