"""CLIP with prompts: where they stand, what learns, and what a folder must hold."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from models.clip import as_pixels, class_rows, text_rows, vision_from
from models.clip_files import ClipError, inspect, load_teacher, words_of
from tests.client.comkd.helpers import images, sent, small_teacher, texts, write_clip

PATCH_PROMPTS, WORD_PROMPTS = "image.vision.embeddings.prompts", "text.text.embeddings.token_embedding.prompts"


def loss_of(teacher):
    logits = teacher.logits(teacher.image_features(images(4)), teacher.text_features(texts()))
    return torch.nn.functional.cross_entropy(logits, torch.arange(4))


def test_prompts_start_as_the_words_that_they_stand_for():
    teacher = small_teacher()
    torch.testing.assert_close(teacher.text_features(texts(True)), teacher.text_features(texts(False)), rtol=0, atol=0)
    teacher.text.words.prompts.data[0, 0] += 1.0
    assert not torch.allclose(teacher.text_features(texts(True)), teacher.text_features(texts(False)))


def test_only_prompts_learn():
    teacher = small_teacher()
    before = {name: value.detach().clone() for name, value in teacher.named_parameters()}
    prompts = teacher.learn_prompts_alone()
    optimizer = torch.optim.SGD(teacher.parameters(), lr=1.0)
    loss_of(teacher).backward()
    assert [tuple(one.shape) for one in prompts] == [(3, 16), (2, 16)]
    assert {name for name, value in teacher.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0} == {
        PATCH_PROMPTS,
        WORD_PROMPTS,
    }
    optimizer.step()
    changed = {name for name, value in teacher.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {PATCH_PROMPTS, WORD_PROMPTS}


def test_text_features_are_those_of_the_classes_in_order():
    teacher = small_teacher()
    together = teacher.text_features(texts())
    for place, row in enumerate(texts()):  # padded or not, alone or together
        torch.testing.assert_close(together[place], teacher.text_features(row[None])[0])
    turned = teacher.text_features(texts().flip(0))
    torch.testing.assert_close(turned, together.flip(0))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    assert torch.cdist(together, together).fill_diagonal_(1).min() > 1e-3


def test_padding_of_a_text_means_nothing():
    teacher, rows = small_teacher(), text_rows(torch.tensor([[7, 8, 0, 0]]), 2, 3)
    torch.testing.assert_close(teacher.text_features(rows), teacher.text_features(torch.tensor([[2, 7, 8, 3]])))


def test_logits_by_hand():
    teacher = small_teacher()
    teacher.scale.data = torch.tensor(2.0).log()
    u, w = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    torch.testing.assert_close(teacher.logits(u, w), torch.tensor([[0.0, 2.0], [1.6, 1.2]]))
    teacher.scale.data = torch.tensor(50.0)
    assert teacher.logit_scale() == 100


def test_context_differs_from_prompts_in_ids_alone():
    assert class_rows([[7], [8, 9]], [4, 5], 2, 3, prompted=False).tolist() == [[2, 4, 5, 7, 3, 0], [2, 4, 5, 8, 9, 3]]


def test_sizes_that_travelled_are_checked():
    sizes = sent(small_teacher())[0].vision
    assert vision_from(sizes) == small_teacher().image.sizes
    for wrong in ({"width": 0}, {"side": True}, {"layers": 10**6}, {"activation": "os.system"}, {"more": 1}):
        with pytest.raises(ValueError, match=r"sizes of an image branch|expected 'quick_gelu'"):
            vision_from({**sizes, **wrong})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


def test_a_folder_gives_what_transformers_gives(folder):
    from transformers import CLIPModel

    teacher, clip = load_teacher(folder, 1, 0).eval(), CLIPModel.from_pretrained(folder).eval()
    words, begin, end = words_of(folder)
    assert (words("a cat"), begin, end) == ([1, 2], 3, 4)
    ids = class_rows([words("cat"), words("a")], words("a"), begin, end, prompted=False)
    teacher.start_prompts(words("a"))
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        theirs = clip(input_ids=ids, pixel_values=as_pixels(pixels, 16)).logits_per_image
        prompted = class_rows([words("cat"), words("a")], words("a"), begin, end, prompted=True)
        ours = teacher.logits(teacher.image_features(pixels), teacher.text_features(prompted))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert teacher.image_features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 6)  # other sides are resized


@pytest.mark.parametrize(
    ("lacks", "adds", "said"),
    [
        ("config.json", "", r"config\.json is missing: clip\.pretrained-dir is the folder"),
        ("model.safetensors", "", r"model\.safetensors is missing"),
        (
            "model.safetensors",
            "pytorch_model.bin",
            r"pytorch_model\.bin but no model\.safetensors; pickled weights are not read",
        ),
        ("tokenizer.json", "", r"tokenizer\.json is missing"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(folder, tmp_path, lacks, adds, said):
    root = shutil.copytree(folder, tmp_path / "clip")
    (root / lacks).unlink()
    if adds:
        (root / adds).write_bytes(b"\x80\x04.")
    for read in (inspect, lambda path: load_teacher(path, 1, 1), words_of):
        with pytest.raises(ClipError, match=said):
            read(root)


def test_another_model_and_damaged_weights_are_refused(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "clip")
    (root / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ClipError, match="cannot be read"):
        load_teacher(root, 1, 1)
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ClipError, match="model_type is 'bert', expected 'clip'"):
        inspect(root)


def test_weights_of_part_of_a_model_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    root = shutil.copytree(folder, tmp_path / "clip")
    tensors = load_file(root / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ClipError, match=r"1 tensors are missing, such as text_projection\.weight"):
        load_teacher(root, 1, 1)
