"""What a search knows before it starts, and the runs and the work of each of its candidates."""

from dataclasses import dataclass
from pathlib import Path

from vision_transfer.config import Config
from vision_transfer.models.network import Network
from vision_transfer.tasks.benchmark.costs import forward_costs, total
from vision_transfer.tasks.folds import configs_of_folds
from vision_transfer.tasks.search.candidates import Base, Candidate, heads_on, run_config, tunings
from vision_transfer.tasks.search.costs import Work, run_work
from vision_transfer.tasks.study.plan import PlannedRun


@dataclass(frozen=True)
class Search:
    """A search before it starts: its config, networks, the sizes of the splits, and its folder.

    `networks` has the network of each base, `digest` is of the config and the data. With folds (`config.dataset.folds`)
    candidates are compared on the images of all, each predicted by a run that has not seen it; the sizes are those of
    one fold's run, and `tested` is the number of images that the last run is tested on.
    """

    config: Config
    networks: dict[Base, Network]
    sizes: dict[str, int]
    tested: int
    folder: Path
    digest: str

    @property
    def folds(self) -> int:
        """The number of folds that candidates are compared by; 0 for none, or where the config names one of them."""
        dataset = self.config.dataset
        return dataset.folds if dataset.fold is None else 0

    def run_config(self, candidate: Candidate) -> Config:
        """The config of a candidate's run; with folds, of that on the images of all."""
        examples = self.config.dataset.train_examples or self.sizes["train"]
        return run_config(self.config, candidate, examples, self.sizes["validation"])

    def runs(self, candidate: Candidate) -> list[PlannedRun]:
        """The runs that a candidate is judged by: its own, or that of each fold."""
        config, name = self.run_config(candidate), candidate.name
        if not self.folds:
            return [PlannedRun(name, config, {"candidate": name})]
        runs = [
            PlannedRun(f"{name}, fold {number}", run, {"candidate": name, "fold": number})
            for number, run in enumerate(configs_of_folds(config))
        ]
        return runs[:1] if candidate.on_first_fold else runs

    def work(self, candidate: Candidate, *, has_features: bool = True) -> Work:
        """The work of a candidate's runs; see `run_work`. The first one computes the features of all images."""
        network = self.networks[candidate.base]
        works = [
            run_work(
                run.config,
                network,
                self.sizes,
                has_features=has_features or number > 0,
                has_prefixes=number > 0,
                is_tested=bool(self.folds),
            )
            for number, run in enumerate(self.runs(candidate))
        ]
        forward, epoch = sum(one.forward for one in works), sum(one.epoch for one in works)
        return Work(forward, epoch, works[0].epochs, len(works))

    def ways(self, base: Base) -> list[Candidate]:
        """Ways to fine-tune a base."""
        return list(tunings(self.config, base, self.networks[base]))

    def features(self, base: Base) -> float:
        """Operations to compute the features of a base's heads."""
        return self.work(heads_on(self.config, base)[0], has_features=False).forward

    def test(self, base: Base) -> float:
        """Operations of the test of the chosen run, if it is on this base."""
        return total(forward_costs(self.networks[base], self.tested)).flops

    def cost(self, candidate: Candidate) -> float:
        """Operations to train a candidate from the images."""
        work = self.work(candidate, has_features=False)
        return work.forward + work.training
