"""The benchmark from the config to its files, with workers that really measure, and with a stub as a peer."""

import json
import re
import sys
import textwrap

import pytest

from vision_transfer.config import checked, default_config
from vision_transfer.errors import UserError
from vision_transfer.tasks.benchmark import measure
from vision_transfer.tasks.benchmark.cases import comparison_cases, depth_cases, peer_request
from vision_transfer.tasks.benchmark.chips import known_chip
from vision_transfer.tasks.benchmark.tables import cases_table, comparison_table, layer_table
from vision_transfer.tasks.benchmark.task import benchmark, draw_depths
from vision_transfer.tasks.benchmark.worker import spread, take_turns, worker

STUB = """
    from vision_transfer.tasks.benchmark.protocol import serve

    def build(request):
        print("output of libraries must not be taken for a reply")
        return lambda times: sum(range(20_000 * times)), {"device": "cpu", "library": "stub 1"}, dict

    if __name__ == "__main__":
        serve(build)
"""


@pytest.fixture
def config():
    """A network of a second or two."""
    config = default_config()
    config.name = "benchmark"
    config.task = "benchmark"
    config.batch_size = 2
    config.dataset.image_size = 28
    config.dataset.channels = 1
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.hidden = (8,)
    config.benchmark.freeze = ("none", "all")
    config.benchmark.repeats = 2
    config.benchmark.seconds_per_repeat = 0.0
    return config


def test_the_cases_cover_depths_and_sources(config):
    config.benchmark.forward_batches = (2, 4)
    cases = depth_cases(checked(config))
    assert [(case.work, case.batch) for case in cases[:2]] == [("forward", 2), ("forward", 4)]
    assert [(case.freeze, case.source) for case in cases[2:]] == [
        ("none", "images"),
        ("all", "images"),
        ("all", "features"),
    ]
    assert [case.name for case in cases[:1] + cases[-1:]] == [
        "forward, batch 2",
        "step, frozen: all, from cached pool2, batch 2",
    ]
    assert comparison_cases(checked(config))[-1].network.input_shape == (150, 150, 3)


@pytest.mark.parametrize("work", ["forward", "step"])
def test_a_peer_is_asked_for_the_layers_that_run(case_of, work):
    case = case_of(work, "below:block2_conv2", "features")
    request = json.loads(json.dumps(peer_request(case)))
    assert request["layers"][0]["name"] == case.start == "block2_conv1"
    assert tuple(request["input_shape"]) == case.input_shape
    assert request["trainable"][0] == "block2_conv2"
    assert (request["precision"], request["optimizer"], request["outputs"]) == ("float32", "rmsprop", 1)
    for_keras = json.loads(json.dumps(measure.layers_for_keras(case)))
    names = [layer["config"]["name"] for layer in for_keras]
    assert (names[0], names[-1]) == (case.start, request["layers"][-1]["name"])
    assert [layer["inputs"] for layer in for_keras] == [[name] for name in ("images", *names[:-1])]


def test_an_unknown_peer_and_a_misfit_freeze_are_reported(config, tmp_path, screen):
    config.benchmark.peers = ("keras,tensorflow",)
    with pytest.raises(UserError, match=r"config\.benchmark\.peers.*'tensorflow'.*keras, keras_jax"):
        benchmark(checked(config), tmp_path / "cache", tmp_path / "run", screen)
    config.benchmark.peers = ()
    config.benchmark.freeze = ("below:block9",)
    with pytest.raises(UserError, match=r"config\.benchmark\.freeze.*block9"):
        depth_cases(checked(config))


def test_peers_and_ours_take_turns_and_their_ratio_is_reported(config, case_of, tmp_path, screen, monkeypatch):
    (tmp_path / "stub_peer.py").write_text(textwrap.dedent(STUB))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def stubbed(name, module, request, python=None, variables=None):
        return worker(name, "stub_peer" if "peers" in module else module, request, python, variables)

    monkeypatch.setattr(measure, "worker", stubbed)
    cases = [case_of("forward", batch=2)]
    (record,) = measure.compare(checked(config), cases, ("keras",), sys.executable, tmp_path / "cache", screen)
    ours, peer = record["libraries"]["ours"], record["libraries"]["keras"]
    assert peer["library"] == "stub 1"
    ratio = record["ratios"]["keras"]
    assert ratio["time"] == pytest.approx(ours["seconds"]["median"] / peer["seconds"]["median"])
    assert ratio["peak_memory"] == pytest.approx(ours["peak_memory_bytes"] / peer["peak_memory_bytes"])


def test_onnx_runtime_runs_the_forward_pass_and_keras_on_jax_a_step(config, case_of, tmp_path, screen):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed; it comes with [export]")
    (forward,), (step,) = (
        measure.compare(checked(config), [case], peers, sys.executable, tmp_path / "cache", screen)
        for case, peers in (
            (case_of("forward", batch=2), ("onnxruntime",)),
            (case_of("step", batch=2), ("onnxruntime", "keras_jax")),
        )
    )
    assert [sorted(record["libraries"]) for record in (forward, step)] == [
        ["onnxruntime", "ours"],
        ["keras_jax", "ours"],
    ]
    assert forward["libraries"]["onnxruntime"]["library"].startswith("onnxruntime ")
    assert re.fullmatch(r"keras [\d.]+, jax [\d.]+", step["libraries"]["keras_jax"]["library"])
    comparison_table([forward])


def test_work_that_needs_more_memory_than_there_is_says_so(tmp_path, monkeypatch):
    (tmp_path / "stub_peer.py").write_text(textwrap.dedent(STUB).replace("print(", "raise MemoryError("))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with worker("a peer", "stub_peer", {}) as full:
        assert "must not be taken" in full.facts["out_of_memory"]


def test_pretrained_norms_keep_their_statistics_in_the_measured_step(config):
    config.model.batch_norm = True
    norms = {"norm1", "norm2", "norm3"}
    for choice, kept in (("batch", set()), ("pretrained", norms)):
        config.model.batch_norm_statistics = choice
        case = next(case for case in depth_cases(checked(config)) if (case.work, case.freeze) == ("step", "none"))
        assert case.program.inference_layers == set(peer_request(case)["inference_layers"]) == kept


def test_a_worker_that_fails_is_reported_with_its_output(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text("raise SystemExit('no such library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    message = r"'a peer' ended with status 1; its last output was\n  no such library"
    with pytest.raises(UserError, match=message), worker("a peer", "failing", {}):
        pass
    with pytest.raises(UserError, match="peer_python"), worker("a peer", "failing", {}, "/no/such/python"):
        pass


class Recorder:
    def __init__(self, name, seconds, log):
        self.name, self.seconds, self.log = name, seconds, log

    def run(self, times):
        self.log.append((self.name, times))
        return self.seconds


def test_turns_alternate_and_each_fills_its_time():
    log = []
    workers = {name: Recorder(name, seconds, log) for name, seconds in (("fast", 0.01), ("slow", 2.0))}
    taken = take_turns(workers, 3, 0.5)
    assert taken == {"fast": [0.01] * 3, "slow": [2.0] * 3}
    assert log[2:] == [("fast", 50), ("slow", 1), ("slow", 1), ("fast", 50), ("fast", 50), ("slow", 1)]


def test_cards_with_the_same_name_are_distinguished_by_their_memory():
    kinds = ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe")
    found = [known_chip(kind) for kind in kinds]
    assert [chip.memory for chip in found if chip is not None] == [40e9, 80e9, 80e9]
    assert len({chip.bandwidth for chip in found if chip is not None}) == len(kinds)


def test_spread_of_known_numbers():
    found = spread([5, 1, 3, 2, 4])
    assert (found["median"], found["first_quartile"], found["third_quartile"]) == (3, 2, 4)
    assert (found["lowest"], found["highest"], found["repeats"]) == (1, 5, 5)
    assert spread([7.0])["first_quartile"] == 7.0


@pytest.mark.parametrize(
    ("kind", "bfloat16"), [("NVIDIA H100 80GB HBM3", 989e12), ("TPU v5 lite", 197e12), ("TPU v5p", 459e12)]
)
def test_chips_are_known_by_their_kind(kind, bfloat16):
    chip = known_chip(kind)
    assert chip is not None
    assert chip.flops["bfloat16"] == bfloat16
    assert chip.flops["float32"] < chip.flops["bfloat16"]
    assert known_chip("cpu") is None


def test_a_name_that_begins_like_another_chip_s_is_not_that_chip():
    assert known_chip("NVIDIA L4") is not None
    assert known_chip("NVIDIA L40S") is None
    assert known_chip("NVIDIA H100 NVL").memory == 94e9


def test_the_figure_draws_measured_and_compiled_steps(case_of, tmp_path):
    facts = {"device": "chip × 4", **case_of(freeze="below:block3_conv1").facts}
    seconds = {"median": 2.0, "first_quartile": 1.0, "third_quartile": 3.0}
    measured = {**facts, "seconds": seconds, "device_memory_bytes": None, "peak_memory_bytes": 1e9}
    compiled = {**facts, "seconds": None, "status": "compiled", "compiler": {"flops": 1e9}, "roofline": None}
    for name, record in (("measured", measured), ("compiled", compiled)):
        draw_depths([record, {**record, "freeze": "all"}], tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_layers_and_compiled_programs_have_tables(case_of, screen):
    case = case_of(freeze="below:block3_conv1")
    screen.say(layer_table(case.name, case.costs))
    record = {
        **case.facts, "status": "compiled", "device": "TPU × 4", "library": "jax", "seconds": None,
        "compiler": {"flops": 2e9, "bytes": 1e9}, "program_bytes": 3e9, "compile_seconds": 1.0,
        "collectives": {"all-reduce": {"count": 1, "bytes": 5e6}}, "compiler_seconds": None, "roofline": None,
    }  # fmt: skip
    screen.say(cases_table([record]))
    said = screen.console.file.getvalue()
    assert "not measured" in said
    assert "block2_conv2" in said
    assert "images/s" not in said
