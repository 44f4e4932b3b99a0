"""Reading the compiler's text, and the messages when it cannot compile."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from jax.experimental import topologies

from vision_transfer.errors import UserError
from vision_transfer.runtime.program import install_extra
from vision_transfer.tasks.benchmark.ahead_of_time import collectives, compile_cases, estimated_cycles, topology_mesh
from vision_transfer.tasks.benchmark.tables import cases_markdown

HLO = """
  %psum = f32[]{:T(128)} all-reduce(%x), channel_id=1, to_apply=%add
  %all-reduce.3 = (f32[64]{0:T(128)}, bf16[3,3,4,8]{3,2,1,0:T(4,128)S(1)}, /*index=5*/f32[2,3]{1,0}) all-reduce(%a, %b)
  %get-tuple-element.1 = f32[64]{0:T(128)} get-tuple-element(%all-reduce.3), index=0
  %gather = f32[8,4]{1,0} all-gather-start(%c), dimensions={0}
  %fusion = f32[8]{0} fusion(%p), calls=%f, backend_config={"window_config":{"estimated_cycles":"1829","x":0}}
  %fusion.1 = f32[8]{0} fusion(%p), calls=%g, backend_config={"window_config":{"estimated_cycles":"171"}}
"""

# libtpu 0.0.42, with the file made by another process, and with TPUs.
LIBTPU_IS_IN_USE = (
    'ABORTED: Internal error when accessing libtpu multi-process lockfile. Run "$ sudo rm /tmp/libtpu_lockfile".',
    'ABORTED: The TPU is already in use by process with pid 7. If you still get this message, run "$ sudo rm '
    '/tmp/libtpu_lockfile".',
)


def test_collectives_are_counted_with_the_bytes_of_their_results():
    assert collectives(HLO) == {
        "all-reduce": {"count": 2, "bytes": 4 + 64 * 4 + 3 * 3 * 4 * 8 * 2 + 6 * 4},
        "all-gather": {"count": 1, "bytes": 8 * 4 * 4},
    }


def test_expected_cycles_are_summed():
    assert estimated_cycles(HLO) == 2000


@pytest.mark.parametrize("target", ["v5e:2x2", "gpu:h100", "cuda:b300", "tpu:", "tpu"])
def test_another_target_is_refused(target):
    with pytest.raises(UserError, match=r"config\.benchmark\.target.*tpu:v5e:2x2"):
        topology_mesh(target)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_message_names_what_to_install():
    with pytest.raises(UserError, match=re.escape(install_extra("tpu"))):
        topology_mesh("tpu:v5e:2x2")


@pytest.mark.parametrize("words", LIBTPU_IS_IN_USE)
def test_a_second_process_is_told_which_file_the_first_one_holds(monkeypatch, words):
    def refused(**_):
        raise RuntimeError(words)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(topologies, "get_topology_desc", refused)
    with pytest.raises(UserError, match=r"another process uses libtpu, and holds /tmp/libtpu_lockfile; wait"):
        topology_mesh("tpu:v5e:2x2")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_two_processes_compile_at_a_time_without_a_word_of_libtpu():
    script = "from vision_transfer.tasks.benchmark.ahead_of_time import topology_mesh; topology_mesh('tpu:v5e:2x2')"
    command = [sys.executable, "-c", f"{script}; print('ready', flush=True); input()"]
    guarded = os.environ | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "0"}
    with subprocess.Popen(command, env=guarded, stdin=-1, stdout=-1, stderr=-1, text=True) as first:
        assert first.stdout.readline() == "ready\n"
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        third = subprocess.run([sys.executable, "-c", script], env=guarded, capture_output=True, text=True)
        _, said = first.communicate("\n")
    assert (second.returncode, second.stdout, second.stderr, said) == (0, "", "", "")
    assert "holds /tmp/libtpu_lockfile" in third.stderr


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_step_compiles_for_an_absent_tpu(case_of, screen):
    cases = [case_of(freeze="all", source="features", batch=8, precision="bfloat16")]
    (record,) = compile_cases(cases, "tpu:v5e:2x2", None, screen)
    assert (record["status"], record["seconds"], record["fits"]) == ("compiled", None, True)
    assert record["device"] == "TPU v5 lite × 4"
    assert record["collectives"]["all-reduce"]["count"] >= 1
    assert record["program_bytes"] > 0
    assert record["compiler"]["flops"] > 0
    assert record["roofline"]["bound"] in ("products", "memory", "links")


@pytest.mark.parametrize("source", ["images", "features"])
def test_a_step_is_lowered_for_an_absent_gpu_and_its_roofline_computed(case_of, screen, tmp_path, source):
    cases = [case_of(freeze="below:block3_conv1", source=source, precision=name) for name in ("bfloat16", "float32")]
    fast, exact = compile_cases(cases, "cuda:h100", tmp_path / "trace", screen)
    assert (fast["status"], fast["device"], fast["seconds"]) == ("computed", "NVIDIA H100", None)
    products, memory = (fast["roofline"]["seconds"][name] for name in ("products", "memory"))
    assert products == pytest.approx(fast["table"]["flops"] / 989e12)
    assert memory == pytest.approx(fast["table"]["bytes"] / 3.35e12)
    assert exact["roofline"]["seconds"]["products"] == pytest.approx(products * 989 / 67)
    assert fast["compiler"]["flops"] == pytest.approx(fast["table"]["flops"], rel=0.2)
    assert "convolution" in (tmp_path / "trace" / "00.hlo.txt").read_text()
    assert "neither compiled nor measured" in cases_markdown([fast, exact])
