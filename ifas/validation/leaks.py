"""Leaks between splits: people, media and near-duplicate images that occur in more than one split."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from ifas.core.phash import COARSE_BITS, HASH_FORMAT, confirmed, words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

#: Number of rows that are compared with a whole bucket at once, which bounds the memory for a very large bucket.
BLOCK = 128
#: Number of candidates that are confirmed at once.
PAIRS = 1_000_000
#: With more chunks than this, a chunk has too few bits to separate anything.
MOST_CHUNKS = 16
#: Buckets of up to this number of rows are compared all at once, offset by offset.
SMALL = 32


def in_several_splits(rows: pd.DataFrame, column: str) -> pd.Series:
    """Problem text of each row whose value of `column` occurs in more than one split of its dataset, else null."""
    import numpy as np
    import pandas as pd

    texts = np.full(len(rows), None, dtype=object)
    datasets, values, splits = (pd.factorize(rows[name])[0] for name in ("dataset", column, "split"))
    known = (datasets >= 0) & (values >= 0) & (splits >= 0)
    keys = pd.factorize(datasets * (values.max(initial=0) + 1) + values)[0]
    first, last = np.full(len(rows), len(rows)), np.full(len(rows), -1)
    np.minimum.at(first, keys[known], splits[known])
    np.maximum.at(last, keys[known], splits[known])
    mask = (first < last)[keys] & (datasets >= 0) & (values >= 0)
    shared = rows.loc[mask, ["dataset", column, "split"]]
    groups = shared.dropna().groupby(["dataset", column])["split"]
    where = groups.agg(lambda found: " and ".join(sorted(found.unique()))).to_dict()
    people = zip(shared["dataset"], shared[column], strict=True)
    what = {"subject_id": "person", "media_id": "medium"}.get(column, column)
    texts[mask] = [f"{what} {value} of {dataset} is in {where[dataset, value]}" for dataset, value in people]
    return pd.Series(texts, index=rows.index, dtype=object)


def near_duplicates(rows: pd.DataFrame, max_hamming: int) -> pd.Series:
    """Problem text of each row whose image has a near-duplicate in another split, else null.

    Rows whose `phash` is not one (`core.phash`) are left out; another rule reports them.
    """
    import numpy as np
    import pandas as pd

    texts = np.full(len(rows), None, dtype=object)
    usable = rows["phash"].str.fullmatch(HASH_FORMAT).fillna(False).astype(bool) & rows["split"].notna()
    if not usable.any():
        return pd.Series(texts, index=rows.index, dtype=object)
    positions = np.flatnonzero(usable.to_numpy())
    codes = words(rows["phash"].to_numpy(dtype=object)[positions])
    names, ids = (rows[name].to_numpy(dtype=object)[positions] for name in ("split", "sample_id"))
    distance, partner = nearest_across(codes, pd.factorize(names)[0], max_hamming)
    for i in np.flatnonzero(partner >= 0):
        j = partner[i]
        alike = "has the same hash as" if distance[i] == 0 else f"differs in {distance[i]} of {COARSE_BITS} bits from"
        texts[positions[i]] = f"an image in {names[i]} {alike} {ids[j]} in {names[j]}"
    return pd.Series(texts, index=rows.index, dtype=object)


def nearest_across(
    codes: npt.NDArray[np.uint64], splits: npt.NDArray[np.int64], max_hamming: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each hash its nearest one of another split, if within `max_hamming` of 64 bits and confirmed by the others.

    Two hashes that differ in at most d bits agree in one of d + 1 chunks (pigeonhole), so only hashes that share a
    chunk are compared.

    Args:
        codes: (n, 9) `core.phash.words`.
        splits: (n,) number of each row's split.

    Returns:
        Hamming distance of the 64 bits (n,) and row of the nearest (n,); -1 in both where there is none. The first row
        wins a tie.
    """
    import numpy as np

    # Frames of one video repeat hashes: compare each hash once per split, in the order of first appearance.
    sort = np.lexsort((splits, *codes.T[::-1]))
    changed = (codes[sort][1:] != codes[sort][:-1]).any(axis=1) | (np.diff(splits[sort]) != 0)
    new = np.r_[np.ones(min(len(codes), 1), bool), changed]
    first = sort[new]
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    distance, nearest = _search(codes[first[order]], splits[first[order]], max_hamming)
    each = np.empty(len(codes), dtype=np.int64)
    each[sort] = rank[np.cumsum(new) - 1]
    return distance[each], np.where(nearest >= 0, first[order][nearest], -1)[each]


def _search(
    codes: npt.NDArray[np.uint64], splits: npt.NDArray[np.int64], limit: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """`nearest_across` for hashes that occur once per split."""
    import numpy as np

    n, far = len(codes), COARSE_BITS + 1
    best = np.full(n, far, dtype=np.int64)
    partner = np.full(n, n, dtype=np.int64)
    coarse = codes[:, 0]
    for keys in _chunks(coarse, limit):
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) != 0])
        ends = np.r_[starts[1:], n]
        mixed = np.minimum.reduceat(splits[order], starts) != np.maximum.reduceat(splits[order], starts)
        small = ends - starts <= SMALL
        _neighbours(codes, splits, order, keys, limit, best, partner)
        for start, end in zip(starts[mixed & ~small], ends[mixed & ~small], strict=True):
            bucket = order[start:end]
            for i in range(0, len(bucket), BLOCK):
                mine = bucket[i : i + BLOCK]
                bits = np.bitwise_count(coarse[mine, None] ^ coarse[None, bucket]).astype(np.int64)
                one, other = np.nonzero((splits[mine, None] != splits[None, bucket]) & (bits <= limit))
                near = _confirmed(codes, mine[one], bucket[other])
                found = np.full_like(bits, far)
                found[one[near], other[near]] = bits[one[near], other[near]]
                # The bucket is in row order, and argmin takes the first.
                at = found.argmin(axis=1)
                least, nearest = found[np.arange(len(mine)), at], bucket[at]
                tie = (least == best[mine]) & (nearest < partner[mine])
                better = (least < far) & ((least < best[mine]) | tie)
                best[mine[better]], partner[mine[better]] = least[better], nearest[better]
    none = partner == n
    return np.where(none, -1, best), np.where(none, -1, partner)


def _neighbours(
    codes: npt.NDArray[np.uint64],
    splits: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    limit: int,
    best: npt.NDArray[np.int64],
    partner: npt.NDArray[np.int64],
) -> None:
    """Compares rows that share a key with the next ones in `order`, up to SMALL places on; updates `best`, `partner`.

    That covers every small bucket. The pairs it sees of large ones are seen again, which changes nothing.
    """
    import numpy as np

    for step in range(1, SMALL):
        a, b = order[:-step], order[step:]
        same = keys[a] == keys[b]
        if not same.any():
            return
        a, b = a[same], b[same]
        bits = np.bitwise_count(codes[a, 0] ^ codes[b, 0]).astype(np.int64)
        near = (bits <= limit) & (splits[a] != splits[b])
        near[near] = _confirmed(codes, a[near], b[near])
        for one, other, distance in zip(a[near], b[near], bits[near], strict=True):
            for i, j in ((one, other), (other, one)):
                if distance < best[i] or (distance == best[i] and j < partner[i]):
                    best[i], partner[i] = distance, j


def _confirmed(
    codes: npt.NDArray[np.uint64], a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether the finer bits of rows a and b, (p,) each, are those of one image; a part of the pairs at a time."""
    import numpy as np

    found = np.zeros(len(a), bool)
    for k in range(0, len(a), PAIRS):
        found[k : k + PAIRS] = confirmed(codes[a[k : k + PAIRS]], codes[b[k : k + PAIRS]])
    return found


def _chunks(coarse: npt.NDArray[np.uint64], limit: int) -> list[npt.NDArray[np.uint64]]:
    """Keys of `limit` + 1 disjoint chunks of bits; one key for all where chunks would be too short to help."""
    import numpy as np

    count = limit + 1
    if count < 1:
        return []
    if count > MOST_CHUNKS:
        return [np.zeros_like(coarse)]
    edges = [COARSE_BITS * i // count for i in range(count + 1)]
    return [(coarse >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1) for low, high in pairwise(edges)]
