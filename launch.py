"""Runs an experiment: `python launch.py --config=configs/finetune.py`; `python launch.py --help` says more."""

from absl import app

from vision_transfer import command_line
from vision_transfer.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()
    command_line.define_flags()
    app.run(command_line.main, flags_parser=command_line.parse_flags)
