"""Positional encoding, and the module that holds the attention's weights."""

import math

import pytest
import torch

from snowmelt.models.zipformer.attention import RelPositionalEncoding, RelPositionMultiheadAttention
from snowmelt.models.zipformer.windows import chunk_windows, full_windows


@pytest.mark.parametrize(("num_queries", "num_left"), [(1, 0), (5, 0), (4, 3), (1, 7)])
def test_rows_hold_sinusoids_of_distances(num_queries: int, num_left: int) -> None:
    encoding = RelPositionalEncoding(6, dropout_rate=0.5).eval()
    rows = encoding(torch.zeros(num_queries, 2, 6), num_left)
    assert rows.shape == (1, 2 * num_queries - 1 + num_left, 6)
    for r, row in enumerate(rows[0]):
        distance = num_queries + num_left - 1 - r
        expected = []
        for k in range(3):
            angle = distance * 10000.0 ** (-2 * k / 6)
            expected += [math.sin(angle), math.cos(angle)]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=0.0, atol=1e-6)


def test_the_table_grows_and_stays_the_same() -> None:
    encoding = RelPositionalEncoding(4, dropout_rate=0.0)
    short = encoding.rows(10, 0, torch.zeros(1))
    long = encoding.rows(1500, 20, torch.zeros(1))
    assert long.shape == (1, 3019, 4)
    torch.testing.assert_close(encoding.rows(10, 0, torch.zeros(1)), short)
    assert encoding.state_dict() == {}


def test_type_follows_the_input_and_dropout_the_mode() -> None:
    encoding = RelPositionalEncoding(8, dropout_rate=0.5)
    torch.manual_seed(0)
    rows = encoding(torch.zeros(30, 1, 8, dtype=torch.bfloat16))
    assert rows.dtype == torch.bfloat16
    assert 0.3 < float((rows == 0).float().mean()) < 0.7
    assert not (encoding.eval()(torch.zeros(30, 1, 8))[0, :, 1::2] == 0).any()


def test_blocks_give_what_dense_attention_gives() -> None:
    torch.manual_seed(0)
    attention = RelPositionMultiheadAttention(12, 8, num_heads=2, pos_dim=4).double().eval()
    encoding = RelPositionalEncoding(12, 0.0)
    x = torch.randn(70, 3, 12, dtype=torch.float64)
    x_lens = torch.tensor([70, 33, 1])
    blocks = chunk_windows(70, 16, 1, x_lens)
    assert blocks.num_blocks > 1
    dense = full_windows(70, x_lens)
    chunk = torch.arange(70) // 16
    dense = dense._replace(
        first=((chunk - 1) * 16).clamp(min=0).int().expand(3, 1, 70),
        last=torch.minimum((chunk + 1) * 16, x_lens[:, None])[:, None].int(),
    )
    results = []
    for windows in (blocks, dense):
        out, weights = attention(x, encoding.rows(windows.block, windows.left, x), windows)
        results.append((out, attention.forward2(x.cos(), weights, windows)))
    for n, length in enumerate(x_lens.tolist()):
        torch.testing.assert_close(results[0][0][:length, n], results[1][0][:length, n])
        torch.testing.assert_close(results[0][1][:length, n], results[1][1][:length, n])


def test_stream_hands_back_all_keys_and_values() -> None:
    torch.manual_seed(0)
    attention = RelPositionMultiheadAttention(12, 8, num_heads=2, pos_dim=4).eval()
    x = torch.randn(4, 1, 12)
    windows = chunk_windows(4, 4, 1, torch.tensor([4]), torch.tensor([0]))
    pos_emb = RelPositionalEncoding(12, 0.0).rows(4, 4, x)
    key, value = torch.zeros(4, 1, 8), torch.zeros(4, 1, 4)
    out, weights, keys, values = attention.stream(x, pos_emb, windows, key, value)
    assert keys.shape == (8, 1, 8) and values.shape == (8, 1, 4)
    assert not weights[..., :4].any(), "the cache is not filled yet"
    fresh = chunk_windows(4, 4, 0, torch.tensor([4]))
    pos_emb = RelPositionalEncoding(12, 0.0).rows(4, 0, x)
    torch.testing.assert_close(out, attention(x, pos_emb, fresh)[0])
