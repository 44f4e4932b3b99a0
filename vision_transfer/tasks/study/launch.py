"""Does the run of a config by its task, for studies whose runs are of several tasks."""

from vision_transfer.config import Config
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.classic_classifier.task import classify
from vision_transfer.tasks.train.task import train


def launch(config: Config, options: RunOptions, screen: Screen) -> RunFolder:
    """Trains the stages of a config or fits its classic classifier, or finds the finished run; returns its folder.

    Raises:
        UserError: a config, data, weights or folder that cannot be used.
        Stopped: asked to stop; the same call resumes.
    """
    return (classify if config.task == "classic_classifier" else train)(config, options, screen)
