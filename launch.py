"""Runs an experiment: `python launch.py --config=configs/finetune.py`; `python launch.py --help` says more."""

from vision_transfer.runtime.preemption import leave_when_asked

leave_when_asked()  # the other imports take a while

from absl import app  # noqa: E402

from vision_transfer.cli import main  # noqa: E402
from vision_transfer.runtime.huge_pages import restart_with_huge_pages  # noqa: E402

if __name__ == "__main__":
    restart_with_huge_pages()
    main.define_flags()
    app.run(main.main, flags_parser=main.parse_flags)
