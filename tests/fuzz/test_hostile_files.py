"""Files that would run code in a careless loader: each is refused, and nothing is run."""

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from snowmelt.checkpoint.files import load_checkpoint, peek_checkpoint
from snowmelt.core.config import load_yaml
from snowmelt.core.errors import UserError
from snowmelt.runtime.backends.torchscript import load_script
from snowmelt.runtime.doctor import find_problems
from snowmelt.runtime.info import describe
from snowmelt.runtime.load import load_model
from snowmelt.text.graph import DecodingGraph
from snowmelt.text.tokenizer import load_tokenizer
from tests.runtime.tiny import tiny_tokenizer


class _Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._folder),)


def _new_format(evil: object, path: Path) -> None:
    torch.save({"model": {"a": evil}}, path)


def _old_format(evil: object, path: Path) -> None:
    torch.save({"model": {"a": evil}}, path, _use_new_zipfile_serialization=False)


def _oldest_format(evil: object, path: Path) -> None:
    """torch's tar archives of 2016."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps({"model": evil}, protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _bare_pickle(evil: object, path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": {"a": evil}}, protocol=2))


def _archive_of_a_pickle(evil: object, path: Path) -> None:
    """As TorchScript programs have it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"cpu_jit/{name}", pickle.dumps((evil,), protocol=2))
        archive.writestr("cpu_jit/version", "3\n")


_WRITERS = [_new_format, _old_format, _oldest_format, _bare_pickle, _archive_of_a_pickle]


@pytest.mark.parametrize("write", _WRITERS)
@pytest.mark.parametrize(
    "load",
    [
        load_checkpoint,
        peek_checkpoint,
        describe,
        lambda path: load_model(path, device="cpu"),
        lambda path: load_script(path, "program"),
    ],
)
@pytest.mark.parametrize("name", ["pretrained.pt", "cpu_jit.pt"])
def test_weights_and_programs(
    write: Callable[[object, Path], None], load: Callable[[Path], object], name: str, tmp_path: Path
) -> None:
    tiny_tokenizer().save(tmp_path)
    write(_Evil(tmp_path / "owned"), tmp_path / name)
    with pytest.raises(UserError, match=name):
        load(tmp_path / name)
    assert len(find_problems(tmp_path / name)) == 1
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["LG.npz", "bpe.model", "tokens.txt", "encoder.onnx"])
def test_a_pickle_in_place_of_another_file(name: str, tmp_path: Path) -> None:
    for part in ("decoder", "joiner"):
        (tmp_path / f"{part}.onnx").write_bytes(b"x")
    tiny_tokenizer().save(tmp_path)
    _bare_pickle(_Evil(tmp_path / "owned"), tmp_path / name)
    load: Callable[[Path], object] = {
        "LG.npz": DecodingGraph.load,
        "encoder.onnx": load_model,
    }.get(name, load_tokenizer)
    with pytest.raises(UserError, match=name):
        load(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_objects_in_a_graph(tmp_path: Path) -> None:
    """NumPy keeps them as pickles."""
    evil = np.array([_Evil(tmp_path / "owned")], dtype=object)
    np.savez(tmp_path / "LG.npz", format=evil, version=evil, checksums=evil, dst=evil)
    with pytest.raises(UserError, match=r"LG\.npz is not a decoding graph"):
        DecodingGraph.load(tmp_path / "LG.npz")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.mkdir [{}]",
        "model: !!python/object/new:os.mkdir [{}]",
        "model: !!python/name:os.mkdir",
    ],
)
def test_code_in_a_configuration(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text.format(tmp_path / "owned"))
    with pytest.raises(UserError, match=r"config\.yaml is not valid YAML"):
        load_yaml(tmp_path / "config.yaml")
    assert not (tmp_path / "owned").exists()
