"""Patches: nothing is lost, and a token's place depends on its row and column alone."""

import copy

import pytest
import torch
from torch import Tensor

from saga_sr.support.stable_audio import quiet_import
from saga_sr.weightfree.patches import PatchAttention, PatchGrid, PatchRotary, give_positions

with quiet_import():
    from stable_audio_tools.models.transformer import (
        ContinuousTransformer,
        apply_rotary_pos_emb,
    )

GRID = PatchGrid(channels=2, num_bins=24, bins=8, frames=4)


def test_tokens_hold_the_latent_and_nothing_else() -> None:
    latent = torch.randn(3, 48, 20)
    tokens = GRID.to_tokens(latent)
    assert tokens.shape == (3, 5 * 3, 2 * 8 * 4)
    assert torch.equal(GRID.from_tokens(tokens), latent)
    assert torch.equal(tokens.flatten().sort().values, latent.flatten().sort().values)


def test_the_sequence_runs_up_each_column_and_a_patch_holds_all_channels() -> None:
    latent = torch.zeros(1, 48, 20)
    for channel in (0, 1):  # row 1, column 2
        latent[:, channel * 24 + 8 : channel * 24 + 16, 8:12] = 1
    filled = GRID.to_tokens(latent)[0].all(dim=1)
    assert filled.nonzero().flatten().tolist() == [2 * GRID.rows + 1]


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide 18 frames"):
        GRID.to_tokens(torch.zeros(1, 48, 18))
    with pytest.raises(ValueError, match="do not divide 24 bins"):
        PatchGrid(channels=1, num_bins=24, bins=7, frames=4)


@pytest.mark.parametrize(
    ("passband_hz", "expected"), [(0.0, [0, 0, 0]), (4000.0, [1, 1 / 3, 0]), (9e3, [1, 1, 1])]
)
def test_a_row_is_known_as_far_as_the_passband_reaches(
    passband_hz: float, expected: list[float]
) -> None:
    share = GRID.known_share(torch.tensor([passband_hz]), sample_rate=18000)
    assert share[0].tolist() == pytest.approx(expected)


def test_attention_sees_distances_in_rows_and_columns() -> None:
    rows, count = 6, 30
    rotary = PatchRotary(16, rows)
    angles, _ = rotary.forward_from_seq_len(count)
    query, key = torch.randn(2, 1, 16)

    def score(first: int, second: int) -> float:
        turned = [
            apply_rotary_pos_emb(x, angles[n : n + 1]) for x, n in ((query, first), (key, second))
        ]
        return float((turned[0] * turned[1]).sum())

    for step in (1, rows, rows - 1, 2 * rows + 2):  # up, later, down and later, both
        assert score(7, 7 + step) == pytest.approx(score(8, 8 + step), abs=1e-4)
        assert score(7, 7 + step) == pytest.approx(score(7 + rows, 7 + rows + step), abs=1e-4)
    distances = [score(7, 7 + step) for step in (0, 1, -1, rows, -rows)]
    assert len({round(d, 3) for d in distances}) == len(distances)


def test_positions_do_not_depend_on_the_windows_length() -> None:
    rotary = PatchRotary(16, 6)
    short, long = (rotary.forward_from_seq_len(count)[0] for count in (12, 60))
    assert torch.equal(short, long[:12])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rotary.forward_from_seq_len(60)[0], long)


def test_the_transformer_tells_rows_and_columns_apart() -> None:
    """Equal tokens are answered differently in each row, and two that change places do not just
    change their answers."""
    torch.manual_seed(0)
    transformer = ContinuousTransformer(32, 2, dim_in=8, dim_out=8, dim_heads=16)
    give_positions(transformer, rows=3, head_dim=16)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)

    def answer(tokens: Tensor) -> Tensor:
        with torch.no_grad():
            return transformer(tokens, use_checkpointing=False)

    equal = answer(torch.ones(1, 12, 8))[0]
    assert (equal[:3, None] - equal[None, :3]).abs().amax(dim=-1).gt(1e-3).sum() == 6
    tokens = torch.randn(1, 12, 8)
    swapped = tokens.clone()
    swapped[:, [1, 7]] = tokens[:, [7, 1]]  # one row, two columns
    assert not torch.allclose(answer(tokens)[:, 1], answer(swapped)[:, 7], atol=1e-4)


def test_attention_is_that_of_stable_audio_tools() -> None:
    """Same weights, same answer: with and without autocast, for itself and across."""
    torch.manual_seed(0)
    rotary = PatchRotary(16, rows=3)
    original = ContinuousTransformer(
        32, 2, dim_in=8, dim_out=8, dim_heads=16, cross_attend=True, cond_token_dim=32
    )
    for parameter in original.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    original.rotary_pos_emb = rotary
    ours = copy.deepcopy(original)
    give_positions(ours, rows=3, head_dim=16)
    assert any(isinstance(module, PatchAttention) for module in ours.modules())
    ours.use_abs_pos_emb = False
    tokens, context = torch.randn(2, 12, 8), torch.randn(2, 5, 32)
    with torch.no_grad():
        args = {"context": context, "use_checkpointing": False}
        expected, got = original(tokens, **args), ours(tokens, **args)
        assert torch.allclose(got, expected, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            rough = ours(tokens, **args)
    assert (rough - expected).norm() < 0.03 * expected.norm()
