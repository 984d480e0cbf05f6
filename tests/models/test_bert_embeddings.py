"""Frozen embeddings are those of the BERT model in the folder; a folder that does not fit is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from client.training import make_optimizer
from config import Model, Train
from models.bert_embeddings import EmbeddingError, inspect, load
from models.factory import build_model
from models.groups import Group, get_tensors, group_names, shared_names, stored_names
from models.size import count
from tests.models.helpers import batch, save_bert

ROWS, POSITIONS, HIDDEN = 30, 20, 16
IDS = batch("text", 6)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder that transformers wrote, and the embeddings block of the model that it holds."""
    folder = tmp_path_factory.mktemp("bert")
    return folder, save_bert(folder, ROWS, POSITIONS, HIDDEN).embeddings.eval()


@pytest.fixture
def folder(bert, tmp_path) -> Path:
    return Path(shutil.copytree(bert[0], tmp_path / "model"))


def text_model(folder: Path, **settings: object) -> torch.nn.Module:
    model = Model.model_validate({"embedding_dir": str(folder), **settings})
    return build_model(model, "text", 5, vocab_size=ROWS, max_tokens=12, seed=0)


def test_output_is_that_of_bert(bert) -> None:
    module = load(bert[0], ROWS, 12)
    with torch.no_grad():
        assert torch.allclose(module(IDS), bert[1](IDS), atol=1e-6)
        assert torch.equal(module.train()(IDS), module.eval()(IDS))
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "word_embeddings.weight": (ROWS, HIDDEN),
        "position_embeddings.weight": (POSITIONS, HIDDEN),
        "token_type_embeddings.weight": (2, HIDDEN),
        "LayerNorm.weight": (HIDDEN,),
        "LayerNorm.bias": (HIDDEN,),
    }


def with_prefix(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({f"bert.{name}": value for name, value in tensors.items()}, folder / "model.safetensors")


def with_old_names(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for n, v in tensors.items()
    }
    save_file(old, folder / "model.safetensors")


def sharded(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"a.safetensors": {}, "b.safetensors": {}}
    for index, (name, value) in enumerate(tensors.items()):
        parts["ab"[index % 2] + ".safetensors"][name] = value
    for file, part in parts.items():
        save_file(part, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("form", [with_prefix, with_old_names, sharded])
def test_every_form_in_which_models_are_published(bert, folder: Path, form: Callable[[Path], None]) -> None:
    form(folder)
    with torch.no_grad():
        assert torch.allclose(load(folder, ROWS, 12)(IDS), bert[1](IDS), atol=1e-6)


def test_half_precision_files_become_float32(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value.half() for name, value in tensors.items()}, folder / "model.safetensors")
    module = load(folder, ROWS, 12)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert torch.equal(module.word_embeddings.weight, tensors["embeddings.word_embeddings.weight"].half().float())


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def edit(change: dict[str, object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))

    return apply


def without_types(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["embeddings.token_type_embeddings.weight"]
    save_file(tensors, folder / "model.safetensors")


def narrow_norm(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"embeddings.LayerNorm.bias": torch.zeros(4)}, folder / "model.safetensors")


def not_finite(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"][3] = torch.nan
    save_file(tensors, folder / "model.safetensors")


def part_missing(folder: Path) -> None:
    sharded(folder)
    (folder / "b.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"config.json is missing: .*config.json and model.safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model.safetensors is missing: .*save_pretrained"),
        (pickled, r"pytorch_model.bin.*save_pretrained\(folder, safe_serialization=True\)"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"short"), "cannot be read .*copy it again"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (edit({"model_type": "roberta"}), r"\('roberta', 'absolute'\), expected \('bert', 'absolute'\)"),
        (edit({"position_embedding_type": "relative_key"}), r"\('bert', 'relative_key'\)"),
        (without_types, r"none of its \d+ tensors is 'embeddings.token_type_embeddings.weight'"),
        (narrow_norm, r"'LayerNorm.bias': \(4,\).*expected.*'LayerNorm.bias': \(16,\)"),
        (not_finite, "not finite"),
        (part_missing, r"b.safetensors is missing"),
    ],
)
def test_another_folder_is_refused(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder)
    with pytest.raises(EmbeddingError, match=message):
        load(folder, ROWS, 12)


def test_sizes_that_do_not_fit_the_run_are_refused(bert) -> None:
    with pytest.raises(EmbeddingError, match=r"embeddings of 30 tokens, but the tokenizer has 2,000: set data\.vocab-file"):
        inspect(bert[0], 2000, 12)
    with pytest.raises(EmbeddingError, match=r"data\.max-tokens = 21, but .* has 20 positions"):
        inspect(bert[0], ROWS, 21)
    assert inspect(bert[0], ROWS, 20).hidden == HIDDEN


def test_frozen_tensors_are_neither_shared_stored_nor_trained(bert) -> None:
    model = text_model(bert[0])
    frozen = set(group_names(model, Group.FROZEN))
    assert len(frozen) == 5
    assert all(name.startswith("frozen.") for name in frozen)
    assert count(model)[Group.FROZEN] == (ROWS + POSITIONS + 2 + 2) * HIDDEN
    for names in (stored_names(model), *(shared_names(model, s) for s in ("backbone", "backbone+adapter+head"))):
        assert not frozen & set(names)
    assert set(stored_names(model)) | frozen == set(model.state_dict())
    trained = {id(p) for group in make_optimizer(model, Train(), 0.02).param_groups for p in group["params"]}
    assert trained == {id(p) for name, p in model.named_parameters() if name not in frozen}


def test_a_step_changes_the_linear_map_and_not_the_embeddings(bert) -> None:
    model = text_model(bert[0]).train()
    before = get_tensors(model, model.state_dict())
    optimizer = make_optimizer(model, Train(learning_rate=0.1, weight_decay=0.5), 0.02)
    F.cross_entropy(model(IDS), torch.arange(6) % 5).backward()
    optimizer.step()
    after = get_tensors(model, model.state_dict())
    assert not torch.equal(after["adapter.front.embed.weight"], before["adapter.front.embed.weight"])
    for name in group_names(model, Group.FROZEN):
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("low_rank", ["basis", "none"])
def test_padding_does_not_change_the_output(bert, low_rank: str) -> None:
    model = text_model(bert[0], low_rank=low_rank).eval()
    ids = torch.randint(1, ROWS, (3, 7), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model(F.pad(ids, (0, 5))), model(ids), atol=1e-5)
    assert not torch.allclose(model(ids.flip(1)), model(ids), atol=1e-4)


def test_the_rest_of_the_model_is_as_without(bert) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    model, plain = text_model(bert[0]), build_model(Model(), "text", 5, vocab_size=ROWS, max_tokens=12, seed=0)
    assert torch.equal(torch.rand(4), expected)
    for name in group_names(plain, Group.BACKBONE, Group.HEAD):
        assert torch.equal(model.get_parameter(name), plain.get_parameter(name))
    assert model.get_parameter("adapter.front.embed.weight").shape == (64, HIDDEN)


def test_image_models_do_not_look_at_the_folder() -> None:
    model, plain = build_model(Model(embedding_dir="/nowhere"), "image", 5, seed=0), build_model(Model(), "image", 5, seed=0)
    tensors = get_tensors(model, model.state_dict())
    assert tensors.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in tensors.items())


def test_a_model_that_does_not_hand_them_in_says_so(bert) -> None:
    with pytest.raises(ValueError, match="no frozen embeddings"):
        text_model(bert[0]).adapter.front(IDS)
