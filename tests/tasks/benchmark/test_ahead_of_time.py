"""Reading the compiler's text, and the messages when it cannot compile."""

import importlib.util

import pytest

from vision_transfer.errors import UserError
from vision_transfer.tasks.benchmark.ahead_of_time import collectives, compile_cases, estimated_cycles, topology_mesh

HLO = """
  %psum = f32[]{:T(128)} all-reduce(%x), channel_id=1, to_apply=%add
  %all-reduce.3 = (f32[64]{0:T(128)}, bf16[3,3,4,8]{3,2,1,0:T(4,128)S(1)}, /*index=5*/f32[2,3]{1,0}) all-reduce(%a, %b)
  %get-tuple-element.1 = f32[64]{0:T(128)} get-tuple-element(%all-reduce.3), index=0
  %gather = f32[8,4]{1,0} all-gather-start(%c), dimensions={0}
  %fusion = f32[8]{0} fusion(%p), calls=%f, backend_config={"window_config":{"estimated_cycles":"1829","x":0}}
  %fusion.1 = f32[8]{0} fusion(%p), calls=%g, backend_config={"window_config":{"estimated_cycles":"171"}}
"""


def test_collectives_are_counted_with_the_bytes_of_their_results():
    assert collectives(HLO) == {
        "all-reduce": {"count": 2, "bytes": 4 + 64 * 4 + 3 * 3 * 4 * 8 * 2 + 6 * 4},
        "all-gather": {"count": 1, "bytes": 8 * 4 * 4},
    }


def test_expected_cycles_are_summed():
    assert estimated_cycles(HLO) == 2000


@pytest.mark.parametrize("target", ["v5e:2x2", "gpu:h100", "tpu:", "tpu"])
def test_another_target_is_refused(target):
    with pytest.raises(UserError, match=r"config\.benchmark\.target.*tpu:v5e:2x2"):
        topology_mesh(target)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_message_names_what_to_install():
    with pytest.raises(UserError, match=r"pip install .*(jax)?\[tpu\]"):
        topology_mesh("tpu:v5e:2x2")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_step_compiles_for_an_absent_tpu(case_of, screen):
    cases = [case_of(freeze="all", source="features", batch=8, precision="bfloat16")]
    (record,) = compile_cases(cases, "tpu:v5e:2x2", None, screen)
    assert record["compiled_not_measured"]
    assert record["device"] == "TPU v5 lite × 4"
    assert record["collectives"]["all-reduce"]["count"] >= 1
    assert record["memory_bytes"] > 0
    assert record["compiler"]["flops"] > 0
    assert record["roofline"]["bound"] in ("products", "memory", "links")
