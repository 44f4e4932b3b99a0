"""Runs an experiment: `python launch.py --config=configs/finetune.py`; `python launch.py --help` says more."""

from absl import app

from vision_transfer.cli import main
from vision_transfer.runtime.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()
    main.define_flags()
    app.run(main.main, flags_parser=main.parse_flags)
