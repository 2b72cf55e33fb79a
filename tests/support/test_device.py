"""What `--precision auto` takes is what the hardware is fast in."""

from pathlib import Path

import pytest
import torch

from saga_sr.support.device import multiplies_bfloat16, pick_precision


def test_a_named_precision_is_taken_anywhere() -> None:
    for name in ("32-true", "bf16-mixed", "16-mixed"):
        assert pick_precision(name, torch.device("cpu")) == name


def test_auto_is_bfloat16_where_the_hardware_multiplies_it_and_float32_elsewhere() -> None:
    for kind in ("cpu", "mps"):
        device = torch.device(kind)
        expected = "bf16-mixed" if multiplies_bfloat16(device) else "32-true"
        assert pick_precision("auto", device) == expected
    assert pick_precision("auto", torch.device("mps")) == "32-true"


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="needs Linux")
def test_the_processor_is_believed_as_the_kernel_describes_it() -> None:
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    if not flags:
        pytest.skip("no x86 processor")
    expected = bool({"amx_bf16", "avx512_bf16"} & set(flags))
    assert multiplies_bfloat16(torch.device("cpu")) == expected
