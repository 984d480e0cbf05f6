import numpy as np
import pytest

from strategies.clustering import adjusted_rand_index, cosine_distances, linked, silhouette, spread

TWO_PAIRS = np.array([[1.0, 0.0], [2.0, 0.2], [0.0, 1.0], [-0.1, 3.0]])


def test_cosine_distances_by_hand():
    rows = np.array([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    distances = cosine_distances(rows, centred=False)
    half = 1 - np.sqrt(0.5)
    expected = [[0, 1, 2, half, 1], [1, 0, 1, half, 1], [2, 1, 0, 2 - half, 1], [half, half, 2 - half, 0, 1], [1, 1, 1, 1, 0]]
    assert distances == pytest.approx(np.array(expected))


def test_linkage_finds_the_pairs_whatever_the_length_of_updates():
    assert linked(cosine_distances(TWO_PAIRS)) == [0, 0, 1, 1]
    scaled = TWO_PAIRS * np.array([[1.0], [50.0], [0.01], [7.0]])
    assert linked(cosine_distances(scaled, centred=False)) == [0, 0, 1, 1]


def test_what_all_updates_have_in_common_does_not_count():
    common = np.array([100.0, 40.0])
    assert cosine_distances(TWO_PAIRS + common) == pytest.approx(cosine_distances(TWO_PAIRS))
    assert cosine_distances(TWO_PAIRS + common, centred=False).max() < 0.01


def test_labels_are_numbered_as_they_appear_in_any_order_of_clients():
    assert linked(cosine_distances(TWO_PAIRS[[2, 0, 3, 1]])) == [0, 1, 0, 1]


def test_average_linkage_not_single():
    """A chain 0–1–2 and the item 3: single linkage would join the chain first, the mean distance does not."""
    points = np.array([0.0, 1.0, 2.1, 3.4])
    assert linked(np.abs(points[:, None] - points), count=2) == [0, 0, 1, 1]


@pytest.mark.parametrize(("count", "labels"), [(1, [0, 0, 0, 0]), (2, [0, 0, 1, 1]), (3, [0, 1, 2, 2]), (4, [0, 1, 2, 3])])
def test_a_given_number_of_clusters_is_kept(count, labels):
    assert linked(cosine_distances(TWO_PAIRS, centred=False), count) == labels


def test_one_and_two_clients_are_one_cluster_unless_told_otherwise():
    apart = cosine_distances(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    assert linked(apart) == [0, 0]
    assert linked(apart, 2) == [0, 1]
    assert linked(apart[:1, :1]) == [0]
    assert linked(np.empty((0, 0))) == []


def test_silhouette_by_hand():
    points = np.array([0.0, 1.0, 10.0])
    distances = np.abs(points[:, None] - points)
    # item 0: a 1, b 10, (10 - 1) / 10; item 1: a 1, b 9, (9 - 1) / 9; item 2 is alone: 0
    assert silhouette(distances, [0, 0, 1]) == pytest.approx((0.9 + 8 / 9) / 3)
    assert silhouette(distances, ["a", "b", "b"]) == pytest.approx((0 + (1 - 9) / 9 + (10 - 9) / 10) / 3)
    assert silhouette(distances, [0, 0, 0]) is None
    assert silhouette(distances, [0, 1, 2]) is None


def test_silhouette_chooses_the_number():
    angles = np.deg2rad([0, 4, 8, 90, 94, 98, 180, 184, 188])
    assert linked(cosine_distances(np.stack([np.cos(angles), np.sin(angles)], axis=1))) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_adjusted_rand_index_by_hand():
    # 6 items, 15 pairs; together in both: {0, 1}, {4, 5} and {3, 4}, {3, 5} are in one alone
    first, second = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]
    # pairs: first 6, second 3, both 2; expected 6 * 3 / 15 = 1.2, largest 4.5
    assert adjusted_rand_index(first, second) == pytest.approx((2 - 1.2) / (4.5 - 1.2))
    assert adjusted_rand_index(second, first) == pytest.approx((2 - 1.2) / (4.5 - 1.2))


def test_adjusted_rand_index_at_its_ends():
    assert adjusted_rand_index([0, 0, 1, 1], ["b", "b", "a", "a"]) == 1.0
    assert adjusted_rand_index([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx((0 - 2 / 3) / (2 - 2 / 3))
    assert adjusted_rand_index([0, 0, 0, 0], [0, 0, 1, 1]) == 0.0
    assert adjusted_rand_index([0, 1, 2], [0, 1, 2]) == 1.0
    assert adjusted_rand_index([0, 0], [1, 1]) == 1.0
    assert adjusted_rand_index([0], [0]) == 1.0


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("labels", ["aabbcc", "abcabc", "aaabbccd", "aabcd", "aaaabbbccdd"])
def test_random_clusters_have_the_sizes_of_the_true_ones_and_keep_their_members_apart(labels, seed):
    new = spread(labels, str(seed))
    assert sorted(new.count(one) for one in set(new)) == sorted(labels.count(one) for one in set(labels))
    assert len(set(zip(new, labels, strict=True))) == len(labels)


def test_random_clusters_that_cannot_be_kept_apart_mix_as_far_as_possible():
    for seed in range(10):
        pairs = list(zip(spread("aaabbb", str(seed)), "aaabbb", strict=True))
        assert sorted(pairs.count(pair) for pair in set(pairs)) == [1, 1, 2, 2]


def test_random_clusters_depend_on_the_seed():
    drawn = {tuple(spread("aabbccddee", str(seed))) for seed in range(10)}
    assert len(drawn) > 5
    assert spread("aabbcc", "1") == spread("aabbcc", "1")
