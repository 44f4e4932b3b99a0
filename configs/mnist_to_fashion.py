"""Transfer from digits to clothes: a convnet pretrained on MNIST, on Fashion-MNIST with more and more images.

    vision-transfer --config=mnist_to_fashion --config.study.source_root=MNIST --config.dataset.root=FASHION

Pretrains once on MNIST. Then, with 100, 1,000, 10,000 and all 54,000 training images and three seeds each, it trains in
three ways: `features` (a new head on the frozen convolutions), `fine_tuning` (from there on everything, at a lower
learning rate) and `from_scratch`. MNIST and FASHION are the folders of the IDX files; leave both out if
$VISION_TRANSFER_DATA has them. The study's folder gets a table and the learning curves. Every run has its own folder
and is shared by all studies that need it.

A seed determines the initial weights, the order and the subset of images. With fewer than 3,200 images an epoch has 50
steps. All runs choose their epoch on the same 6,000 validation images, more than most of the training sets have: the
curves compare the three ways, and do not show what 100 labelled images in total would give.

Expected test accuracy, mean over seeds 0 to 2 (95 % t interval of the mean), and seconds per run for the three ways:

| training images | `features` | `fine_tuning` | `from_scratch` | seconds |
| --- | --- | --- | --- | --- |
| 100 | 0.661 (0.625 to 0.697) | 0.677 (0.645 to 0.708) | 0.686 (0.623 to 0.748) | 5, 14, 15 |
| 1,000 | 0.774 (0.763 to 0.785) | 0.783 (0.771 to 0.795) | 0.797 (0.779 to 0.816) | 6, 18, 37 |
| 10,000 | 0.826 (0.819 to 0.833) | 0.866 (0.858 to 0.875) | 0.871 (0.865 to 0.877) | 10, 64, 80 |
| 54,000 | 0.855 (0.853 to 0.857) | 0.903 (0.895 to 0.911) | 0.905 (0.901 to 0.910) | 30, 280, 219 |

Digits teach nothing that clothes need: training from scratch has the highest mean at every size, and MNIST's features,
kept frozen, fall behind from 10,000 images on. All 37 runs took 41 min on 2 cores (AMD EPYC), some of them with other
work running.
"""

from vision_transfer.config import ConfigDict, default_config, stage, with_stages


def get_config() -> ConfigDict:
    """The convnet, and the stages of the pretraining and of the three ways."""
    config = default_config()
    config.name = "mnist_to_fashion"
    config.task = "transfer_curve"
    config.dataset.name = "fashion_mnist"
    config.dataset.channels = 1
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.preprocessing = "rescale"
    config.model.hidden = (64,)
    config.model.activation = "relu"
    config.model.dropout = 0.5
    config.batch_size = 64
    config.eval_batch_size = 250
    with_stages(
        config,
        pretrain=stage(freeze="none", epochs=5, optimizer={"name": "rmsprop", "lr": 1e-3}),
        head=stage(freeze="all", epochs=20, patience=5, optimizer={"name": "adam", "lr": 1e-3}),
        whole=stage(freeze="none", epochs=20, patience=5, optimizer={"name": "adam", "lr": 3e-4}),
        scratch=stage(freeze="none", epochs=20, patience=5, optimizer={"name": "adam", "lr": 1e-3}),
    )
    # Writing 37 reports would take longer than many of the runs; --mode=report writes that of a single one.
    config.log.report = False
    # The study gives each run the stages it needs.
    config.schedule = ()
    return config
