import numpy as np
import pytest

from config import parse
from models.bert_embeddings import EmbeddingError
from server.app import _initial_arrays
from strategies.protocol import ClientInfo

TEXT = ClientInfo(6, "text", 0, 0, ("a", "b"), 1, 1, 1)


def test_the_server_needs_no_frozen_embeddings_to_share_the_backbone():
    without = _initial_arrays(parse({"model.embedding-dir": "/nowhere"}))
    plain = _initial_arrays(parse({}))(TEXT, "backbone")
    for share in ("backbone", "attention"):
        arrays = without(TEXT, share)
        assert arrays
        assert all(np.array_equal(array, plain[name]) for name, array in arrays.items())
    with pytest.raises(EmbeddingError, match=r"/nowhere/config\.json is missing"):
        without(TEXT, "backbone+adapter")


def test_a_shared_word_embedding_has_a_row_for_every_entry():
    for flat, rows in (({}, 2000), ({"data.vocab-file": "/nowhere/vocab.txt"}, 30_522)):
        arrays = _initial_arrays(parse({**flat, "model.dim": 8}))(TEXT, "backbone+adapter")
        assert arrays["adapter.front.embed.weight"].shape == (rows, 8)
