"""Features of many cuts in one file: what is read is what was written, or one line says why not."""

from pathlib import Path

import numpy as np
import pytest

from snowmelt.core.errors import DataError
from snowmelt.data.feature_rows import FeatureRowsReader, rows_file_size, rows_key, write_rows
from snowmelt.data.features import FeatureReader
from tests.data.fakes import noise_cut, with_stored_features


def _matrices() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-15.9, 8, (n, 80)).astype(np.float32) for n in (3, 0, 5)]


def test_rows_come_back_in_half_precision(tmp_path: Path) -> None:
    matrices = _matrices()
    path = tmp_path / "feats-0.npy"
    write_rows(path, matrices, 8, 80)
    reader = FeatureRowsReader(path)
    read = reader.read(rows_key(3, 5))
    assert read.dtype == np.float32
    assert np.array_equal(read, matrices[2].astype(np.float16).astype(np.float32))
    assert np.abs(read - matrices[2]).max() <= 2**-8
    assert np.array_equal(reader.read("3,8", 1, 3), read[1:3])
    assert reader.read("3,3").shape == (0, 80)
    # numpy alone can read it, and its size can be foretold.
    assert np.load(path).shape == (8, 80)
    assert path.stat().st_size == rows_file_size(8, 80)


def test_other_rows_than_promised_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="should get 9 rows of features, not 8"):
        write_rows(tmp_path / "a.npy", _matrices(), 9, 80)
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_rows(path, _matrices(), 8, 80)
    with pytest.raises(DataError, match="has no rows 3 to 9"):
        FeatureRowsReader(path).read("3,9")
    with pytest.raises(DataError, match="'a.npy' names no rows"):
        FeatureRowsReader(path).read("a.npy")
    path.write_bytes(path.read_bytes()[:-1])
    cut = with_stored_features(noise_cut(tmp_path, "a", 1600), tmp_path, _matrices()[0])
    cut.features.storage_type = "snowmelt_rows"
    cut.features.storage_path, cut.features.storage_key = str(path), "0,10"
    with pytest.raises(DataError, match="stored features of cut a cannot be read: .*mmap length"):
        FeatureReader(is_stored=True).read(cut)
