"""What a card can do at most, by the name that torch has for it.

Dense rates without sparsity (a maker's headline is often twice as much), in bfloat16 with sums in
float32, as torch computes. Sources, by the maker's own titles: [H] NVIDIA H100 Tensor Core GPU
Datasheet, [H2] H200 Datasheet, [A] A100 80GB Datasheet, [L] L4, L40 and L40S Datasheets, [AD]
NVIDIA Ada GPU Architecture, appendix A, [GA] NVIDIA Ampere GA102 GPU Architecture, appendix, and
the datasheets of A10, A40 and RTX A6000.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """Attributes:
    name: pattern of the whole name.
    bf16_tflops, tf32_tflops: dense peaks of the tensor cores.
    memory_gb_s: bandwidth.
    source: see above.
    """

    name: str
    bf16_tflops: float
    tf32_tflops: float
    memory_gb_s: float
    source: str


CARDS = (
    Card(r"NVIDIA H100 80GB HBM3|NVIDIA H800", 989.4, 494.7, 3350, "H"),
    Card(r"NVIDIA H100 NVL", 835.5, 417.7, 3938, "H"),
    Card(r"NVIDIA H100 PCIe", 756.0, 378.0, 2039, "H"),
    Card(r"NVIDIA H200", 989.4, 494.7, 4800, "H2"),
    Card(r"NVIDIA H200 NVL", 835.5, 417.7, 4800, "H2"),
    Card(r"NVIDIA A[18]00-SXM4-80GB", 312.0, 156.0, 2039, "A"),
    Card(r"NVIDIA A[18]00 80GB PCIe", 312.0, 156.0, 1935, "A"),
    Card(r"NVIDIA A100-(SXM4|PCIE)-40GB", 312.0, 156.0, 1555, "A"),
    Card(r"NVIDIA L40S", 362.05, 183.2, 864, "L"),
    Card(r"NVIDIA L40", 181.05, 90.5, 864, "L"),
    Card(r"NVIDIA L4", 121.0, 60.0, 300, "L"),
    Card(r"NVIDIA GeForce RTX 4090", 165.2, 82.6, 1008, "AD"),
    Card(r"NVIDIA GeForce RTX 4080", 97.5, 48.7, 717, "AD"),
    Card(r"NVIDIA GeForce RTX 3090", 71.2, 35.6, 936, "GA"),
    Card(r"NVIDIA RTX A6000", 154.8, 77.4, 768, "GA"),
    Card(r"NVIDIA A40", 149.7, 74.8, 696, "GA"),
    Card(r"NVIDIA A10", 125.0, 62.5, 600, "GA"),
)
H100, A100, RTX_4090 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090"


def card_named(name: str) -> Card | None:
    """The card that torch calls ``name``; None for one that is not in the table, and so for a share
    of a card (MIG) or its cousin (Laptop, D)."""
    return next((card for card in CARDS if re.fullmatch(card.name, name)), None)
