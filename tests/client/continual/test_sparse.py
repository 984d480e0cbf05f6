import numpy as np
import pytest

from client.continual.sparse import dense, dense_all, sparse, sparse_all


def test_by_hand():
    parts = sparse(np.array([[3.0, 0.0, 0.0], [0.0, -1.5, 0.0], [0.0, 0.0, 7.0]]))
    assert parts["positions"].tolist() == [0b10001000, 0b10000000]
    assert parts["values"].tolist() == [3.0, -1.5, 7.0]
    assert parts["values"].dtype == np.float32


@pytest.mark.parametrize("shape", [(0,), (1,), (8,), (5, 7), (3, 2, 3, 3), ()])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_there_and_back_is_exact(shape, share):
    numbers = np.random.default_rng(0)
    array = (numbers.normal(size=shape) * (numbers.random(shape) < share)).astype(np.float32)
    parts = sparse(array)
    back = dense(parts, shape)
    assert back.dtype == np.float32
    assert back.shape == shape
    assert np.array_equal(back, array)
    assert sum(part.nbytes for part in parts.values()) == -(-array.size // 8) + 4 * np.count_nonzero(array)


def test_many_there_and_back():
    arrays = {"a.b": np.eye(3, dtype=np.float32), "a": np.zeros((2, 2), np.float32)}
    parts, shapes = sparse_all(arrays), {name: array.shape for name, array in arrays.items()}
    back = dense_all(parts, shapes)
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    del parts["a.values"]
    with pytest.raises(ValueError, match=r"\['a\.values'\] are missing or unknown"):
        dense_all(parts, shapes)


def test_what_does_not_belong_together_is_refused():
    parts = sparse(np.eye(3))
    with pytest.raises(ValueError, match=r"expected uint8 \(3,\)"):
        dense(parts, (4, 5))
    with pytest.raises(ValueError, match="found 3 positions and values"):
        dense({**parts, "values": parts["values"][:2]}, (3, 3))
    with pytest.raises(ValueError, match="found 3 positions"):  # the eighth is beyond the end
        dense({**parts, "positions": np.array([0b10001001], np.uint8)}, (7,))
