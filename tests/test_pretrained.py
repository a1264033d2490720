import hashlib
import json

import pytest
import torch
from small_policy import small_policy

from shortcut_policy.policy import Policy
from shortcut_policy.pretrained import read_pretrained, write_pretrained

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([3], dtype=torch.int64)}


@pytest.fixture
def folder(tmp_path):
    write_pretrained(tmp_path / "new" / "checkpoint", "policy", {"width": 8}, TENSORS)
    return tmp_path / "new" / "checkpoint"


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | values).items() if v is not None}))


def test_what_is_written_is_read_and_there_is_nothing_else(folder):
    loaded = read_pretrained(folder, "policy")
    assert loaded.kind == "policy"
    assert loaded.config == {"width": 8}
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype
    weights = folder / "model.safetensors"
    assert loaded.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_tensors_that_share_memory_are_written(tmp_path):
    whole = torch.arange(4.0)
    write_pretrained(tmp_path, "policy", {}, {"whole": whole, "part": whole[2:]})
    assert read_pretrained(tmp_path, "policy").tensors["part"].tolist() == [2.0, 3.0]


def test_a_checkpoint_is_never_overwritten(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match="holds a checkpoint already: choose another folder"):
        write_pretrained(folder, "policy", {}, {"a": torch.zeros(1)})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at {folder}: {name} is missing"):
        read_pretrained(folder, "policy")


@pytest.mark.parametrize("others", [{}, {"sha256": None, "config": None}])
def test_another_format_version_is_refused_whatever_else_it_holds(folder, others):
    change(folder, format_version=2, **others)
    with pytest.raises(ValueError, match="has checkpoint format 2, this version reads 1: use the version"):
        read_pretrained(folder, "policy")


def test_another_kind_is_refused(folder):
    with pytest.raises(ValueError, match="holds a 'policy', not a 'generator'"):
        read_pretrained(folder, "generator")


@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_flipped_bit_is_noticed(folder, position):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: its SHA-256 is"):
        read_pretrained(folder, "policy")


@pytest.mark.parametrize("kept", [0, 5, 100])
def test_a_truncated_file_is_noticed(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        read_pretrained(folder, "policy")
    change(folder, sha256=hashlib.sha256(path.read_bytes()).hexdigest())  # written as it is: the format is damaged
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        read_pretrained(folder, "policy")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"{}", b"\xff\xfe", b'{"format_version": 1}'])
def test_a_damaged_config_is_named(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is damaged .*: restore it"):
        read_pretrained(folder, "policy")


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path):
    policy, wider = small_policy(), small_policy(network={"name": "unet1d", "options": {"widths": [8, 24]}})
    policy.save_pretrained(tmp_path / "policy")
    wider.save_pretrained(tmp_path / "wider")
    config = json.loads((tmp_path / "wider" / "config.json").read_text())["config"]
    change(tmp_path / "policy", config=config)
    with pytest.raises(ValueError, match=rf"weights in {tmp_path / 'policy'} do not fit its config\.json"):
        Policy.from_pretrained(tmp_path / "policy")


def test_a_wrong_value_of_the_config_is_quoted(tmp_path):
    small_policy().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    change(tmp_path, config=config | {"horizon": "8"})
    with pytest.raises(ValueError, match=r"config\.horizon must be of type int, got '8'"):
        Policy.from_pretrained(tmp_path)
