"""The program: `vision-transfer`, `python -m vision_transfer` and, in a checkout, `python launch.py`."""

from vision_transfer.runtime.preemption import leave_when_asked


def run() -> None:
    """Runs the command that this process was started with."""
    leave_when_asked()  # the other imports take a while
    from absl import app

    from vision_transfer.cli import main
    from vision_transfer.runtime.huge_pages import restart_with_huge_pages

    restart_with_huge_pages()
    main.define_flags()
    app.run(main.main, flags_parser=main.parse_flags)


if __name__ == "__main__":
    run()
