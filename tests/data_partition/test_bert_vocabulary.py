"""A file with the vocabulary of bert-base-uncased is used as it is, and anything else is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client import training
from client.learner import cached_client, cached_model
from config import Data, Model, Train
from data_partition.emojipairs.dataset import load
from data_partition.files import DataError
from data_partition.text import BERT_VOCAB_SIZE, PAD_ID, UNK_ID, encode, load_bert_tokenizer, unk_id, vocab_size
from tests.data_partition.helpers import OFFSET, bert_entries, write_entries


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return write_entries(tmp_path_factory.mktemp("bert") / "vocab.txt", bert_entries())


def test_ids_are_the_lines_of_the_file(tmp_path):
    entries = bert_entries()
    entries[1037], entries[2235], entries[4743], entries[5000] = "zq", "wordone", "wordtwo", "##qxq"
    tokenizer = load_bert_tokenizer(write_entries(tmp_path / "vocab.txt", entries))
    assert tokenizer.get_vocab_size() == BERT_VOCAB_SIZE == 30_522
    found = encode(["Zq WORDONE: wordtwo, wordtwoqxq", "쥐"], tokenizer)
    assert found.tolist() == [[1037, 2235, 4743, 4743, 5000], [100, 0, 0, 0, 0]]


def test_the_run_config_decides_about_size_and_unknown(vocab):
    assert (vocab_size(Data()), unk_id(Data())) == (2000, 1)
    assert (vocab_size(Data(vocab_file=str(vocab))), unk_id(Data(vocab_file=str(vocab)))) == (30_522, 100)


def test_a_last_line_without_an_end_and_windows_lines_are_as_good(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(bert_entries()), encoding="utf-8")
    (tmp_path / "b.txt").write_bytes("\r\n".join(bert_entries()).encode())
    for name in ("a.txt", "b.txt"):
        assert load_bert_tokenizer(tmp_path / name).token_to_id("[MASK]") == 103


def swapped(entries):
    entries[100], entries[101] = entries[101], entries[100]


def doubled(entries):
    entries[2000] = entries[1999]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries.pop(), r"30,521 lines, expected 30,522.*vocab.txt of the bert-base-uncased model"),
        (lambda entries: entries.append("more"), "30,523 lines, expected 30,522"),
        (lambda entries: entries.append(""), "30,523 lines, expected 30,522"),
        (swapped, r"'\[UNK\]': 101, '\[CLS\]': 100.*expected .*'\[UNK\]': 100"),
        (doubled, r"in lines 2000 and 2001, expected 30,522 different entries, found 30,521"),
        (lambda entries: entries.__setitem__(103, "[other]"), r"'\[MASK\]': None"),
    ],
)
def test_another_file_is_refused(tmp_path, change, message):
    entries = bert_entries()
    change(entries)
    path = write_entries(tmp_path / "vocab.txt", entries)
    with pytest.raises(DataError, match=message):
        load_bert_tokenizer(path)
    with pytest.raises(DataError, match=message):
        load(vocab_file=str(path))


def test_a_missing_file_says_what_it_should_be_and_where_it_comes_from(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match=rf"{path} is not a file: .*vocab.txt of the bert-base-uncased model, 30,522"):
            load(vocab_file=str(path))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        load(vocab_file=str(tmp_path / "bytes.txt"))


def test_texts_are_those_of_the_shipped_vocabulary_in_other_ids(vocab):
    shipped = load().texts.inputs
    expected = np.where(shipped == PAD_ID, PAD_ID, np.where(shipped == UNK_ID, 100, shipped + OFFSET))
    assert np.array_equal(load(vocab_file=str(vocab)).texts.inputs, expected)
    assert np.array_equal(load().texts.inputs, shipped)


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    path = write_entries(tmp_path / "vocab.txt", bert_entries())
    data = Data(vocab_file=str(path))
    before = cached_client(data, 6, 0.0).train.inputs
    assert cached_client(data, 6, 0.0).train.inputs is before
    entries = bert_entries()
    moved = [*entries[: OFFSET + 5], "[unused]", *entries[OFFSET + 5 : -1]]
    write_entries(path, moved)
    after = cached_client(data, 6, 0.0).train.inputs
    assert torch.equal(after, torch.where(before > OFFSET, before + 1, before))


def test_dropped_words_become_the_unknown_token_of_the_vocabulary(vocab):
    tokens = torch.full((20, 8), 4000)
    for data, unknown in ((Data(), 1), (Data(vocab_file=str(vocab)), 100)):
        recipe = training.Recipe(Train(), data, "text", None)
        changed = training.augmented(tokens, recipe, torch.Generator().manual_seed(0))
        assert set(changed.unique().tolist()) == {unknown, 4000}


def test_models_have_a_row_for_every_entry(vocab):
    for data, rows in ((Data(), 2000), (Data(vocab_file=str(vocab)), 30_522)):
        model, _ = cached_model(Model(dim=4, heads=1, cross_heads=1), data, "text", 3, 0)
        assert model.get_parameter("adapter.front.embed.weight").shape == (rows, 4)
