from __future__ import annotations

import pytest

from data_partition.emojipairs.catalogue import SPECIAL_TOKENS, VOCAB_NAME
from data_partition.files import find_data_file
from data_partition.text import PAD_ID, UNK_ID, VOCAB_SIZE, encode, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(find_data_file(VOCAB_NAME))


def test_size_and_special_tokens(tokenizer):
    assert tokenizer.get_vocab_size() == VOCAB_SIZE == 2000
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(5))
    assert (PAD_ID, UNK_ID) == (0, 1)


def test_padding_separators_and_case(tokenizer):
    ids = encode(["Cat: animal", "cat animal, animal"], tokenizer)
    cat, animal = tokenizer.token_to_id("cat"), tokenizer.token_to_id("animal")
    assert ids.tolist() == [[cat, animal, 0], [cat, animal, animal]]


def test_words_outside_the_vocabulary(tokenizer):
    assert encode(["쥐"], tokenizer).tolist() == [[UNK_ID]]
    assert encode([], tokenizer).shape == (0, 0)


def test_a_cut_vocabulary_is_refused(tmp_path):
    lines = find_data_file(VOCAB_NAME).read_text(encoding="utf-8").splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join(lines[:1000]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab.txt.*1000.*expected.*2000"):
        load_tokenizer(tmp_path / "vocab.txt")
