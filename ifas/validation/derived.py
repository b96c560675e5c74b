"""What Great Expectations checks: tables derived from the manifest, with columns of problem texts.

A problem column holds null where a row is right, and otherwise says in words what is wrong with it. The expectation on
such a column is that its values are null, and the texts are what the report shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ifas.core.manifest import CAPTION_COLUMNS, COLUMNS, INSPECTION_COLUMNS
from ifas.core.taxonomy import PAI_SPECIES, SPLITS, SPOOF_TYPES, keyword_forms, media_named
from ifas.validation.section import ID_DIGITS, a_few

if TYPE_CHECKING:
    import pandas as pd

#: Pixels by which a face box may extend beyond the image, since boxes are stored as 32-bit floats.
BOX_SLACK = 0.5
#: What `attack_caption` says of a caption that names its medium.
NAMED = "named"


def problems(bad: pd.Series, text: Callable[..., str], *columns: pd.Series) -> pd.Series:
    """`text(*values)` where `bad`, null elsewhere."""
    import numpy as np
    import pandas as pd

    values = np.full(len(bad), None, dtype=object)
    for i in np.flatnonzero(bad.fillna(False).to_numpy(dtype=bool)):
        values[i] = text(*(column.iat[i] for column in columns))
    return pd.Series(values, index=bad.index, dtype=object)


def looked_up(values: pd.Series, table: Mapping[str, Any]) -> pd.Series:
    """`values.map(table)`, each value that differs looked up once: null where the table has none."""
    import pandas as pd

    codes, names = pd.factorize(values)
    found = pd.Series([table.get(name) if isinstance(name, str) else None for name in names] + [None], dtype=object)
    return found.take(codes).set_axis(values.index)


def size(rows: pd.DataFrame) -> pd.Series:
    """Images with a width or height below 1."""
    bad = (rows["width"] < 1) | (rows["height"] < 1)
    return problems(bad, lambda w, h: f"{w} x {h} pixels", rows["width"], rows["height"])


def face_box(rows: pd.DataFrame) -> pd.Series:
    """Face boxes that are not a box, or extend beyond the image."""
    import numpy as np

    boxes = rows["face_box"]
    some = boxes.notna().to_numpy()
    lengths = np.array([len(box) for box in boxes[some]], dtype=np.int64)
    usable = np.flatnonzero(some)[lengths == 4]
    bad = np.zeros(len(rows), dtype=bool)
    bad[np.flatnonzero(some)[lengths != 4]] = True
    if len(usable):
        x, y, w, h = np.concatenate(boxes.iloc[usable].to_list()).astype(np.float64).reshape(-1, 4).T
        width, height = (rows[name].to_numpy(dtype=np.float64, na_value=np.nan)[usable] for name in ("width", "height"))
        inside = (x >= -BOX_SLACK) & (y >= -BOX_SLACK) & (x + w <= width + BOX_SLACK) & (y + h <= height + BOX_SLACK)
        bad[usable] = ~(inside & (w > 0) & (h > 0))

    def text(box: Any, width: float, height: float) -> str:
        if len(box) != 4:
            return f"{len(box)} numbers instead of x, y, w, h"
        x, y, w, h = (float(v) for v in box)
        return f"box {x:g}, {y:g}, {w:g}, {h:g} in an image of {width:g} x {height:g}"

    import pandas as pd

    return problems(pd.Series(bad, index=rows.index), text, boxes, rows["width"], rows["height"])


def place(rows: pd.DataFrame) -> pd.Series:
    """Rows of the manifest that point to the same row of the same shard."""
    bad = rows.duplicated(["dataset", "shard", "row"], keep=False)
    return problems(
        bad, lambda shard, row: f"several samples point to row {row} of {shard}", rows["shard"], rows["row"]
    )


def label(rows: pd.DataFrame) -> pd.Series:
    """Labels that contradict the spoof type. Unknown values have a rule of their own."""
    known = rows["label"].isin(["live", "spoof"]) & rows["spoof_type"].isin(SPOOF_TYPES)
    bad = known & ((rows["label"] == "live") != (rows["spoof_type"] == "live"))
    return problems(bad, lambda a, b: f"label {a} with spoof type {b}", rows["label"], rows["spoof_type"])


def species(rows: pd.DataFrame) -> pd.Series:
    """PAI species that belong to another spoof type. Unknown values have a rule of their own."""
    belongs = looked_up(rows["pai_species"], PAI_SPECIES)
    bad = belongs.notna() & rows["spoof_type"].isin(SPOOF_TYPES) & (belongs != rows["spoof_type"])
    return problems(bad, lambda a, b: f"species {a} with spoof type {b}", rows["pai_species"], rows["spoof_type"])


def blank(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    """Rows where the text in `column` is null or only white space."""

    def find(rows: pd.DataFrame) -> pd.Series:
        return problems(rows[column].fillna("").str.strip() == "", lambda: f"no {column}")

    return find


#: Bit of each spoof type in `MEDIA`.
BIT = {kind: 1 << n for n, kind in enumerate(SPOOF_TYPES)}
#: Column that `with_media` adds: bits of the media that the row's caption names.
MEDIA = "_media"


def with_media(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the column `MEDIA`: what `media_named` says of each caption, read once for all rules together."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if "caption" not in rows:
        return rows
    captions = rows["caption"]
    bits = np.zeros(len(rows), dtype=np.int16)
    slow = np.ones(len(rows), dtype=bool)
    if isinstance(captions.dtype, pd.StringDtype):
        # A word's boundary is the same for Arrow, a column at a time, and for `re`, a text at a time, in ASCII only.
        texts = pa.array(captions, pa.large_string(), from_pandas=True)
        for kind, words in keyword_forms().items():
            named = pc.match_substring_regex(texts, rf"\b(?:{'|'.join(words)})\b", ignore_case=True)
            bits[pc.fill_null(named, False).to_numpy(zero_copy_only=False)] |= BIT[kind]
        slow = ~pc.fill_null(pc.string_is_ascii(texts), True).to_numpy(zero_copy_only=False)
    for i in np.flatnonzero(slow):
        text = captions.iat[i]
        bits[i] = sum(BIT[kind] for kind in media_named(text)) if isinstance(text, str) else 0
    return rows.assign(**{MEDIA: bits})


def live_caption(rows: pd.DataFrame) -> pd.Series:
    """Captions of bona fide images that name an attack medium."""
    rows = rows if MEDIA in rows else with_media(rows)
    bad = (rows["label"] == "live") & (rows[MEDIA] > 0)
    return problems(
        bad,
        lambda text: f"the caption of a bona fide image names {' and '.join(media_named(text))}: {text}",
        rows["caption"],
    )


def attack_caption(rows: pd.DataFrame) -> pd.Series:
    """`NAMED` where the caption of an attack names its own medium, else what it names. A paper mask may name two."""
    import pandas as pd

    def text(kind: str, caption: Any) -> str:
        named = media_named(caption) if isinstance(caption, str) else []
        return f"it shows a {kind} attack, but the caption names {' and '.join(named) or 'no medium'}: {caption}"

    rows = rows if MEDIA in rows else with_media(rows)
    bad = (rows[MEDIA] & looked_up(rows["spoof_type"], BIT).fillna(0).astype(int)) == 0
    texts = problems(bad, text, rows["spoof_type"], rows["caption"])
    return texts.where(bad, NAMED) if len(rows) else pd.Series([], dtype=object)


def balance(domains: pd.DataFrame, least: float) -> pd.Series:
    """Domains with fewer images than `least` times those of the largest domain."""
    largest = domains["images"].max()
    bad = domains["images"] < least * largest
    return problems(bad, lambda n: f"{n} images, while the largest has {largest}", domains["images"])


def trained_on(rows: pd.DataFrame, source_domains: Sequence[str]) -> pd.DataFrame:
    """Rows without the train and dev rows of domains that are not sources; all rows if no sources are named."""
    if not source_domains:
        return rows
    return rows[rows["domain"].isin(source_domains) | (rows["split"] == "test")]


def class_table(rows: pd.DataFrame, source_domains: Sequence[str]) -> pd.DataFrame:
    """One row per split that exists and class that is trained on: id, images."""
    import pandas as pd

    seen = trained_on(rows, source_domains)
    attacks = set(seen.loc[seen["split"] == "train", "spoof_type"])
    classes = [kind for kind in SPOOF_TYPES if kind == "live" or kind in attacks]
    count = seen.groupby(["split", "spoof_type"]).size().to_dict()
    splits = [split for split in SPLITS if (seen["split"] == split).any()]
    table = [
        (f"class {kind} in split {split}", int(count.get((split, kind), 0))) for split in splits for kind in classes
    ]
    return pd.DataFrame(table, columns=["id", "images"])


def split_table(rows: pd.DataFrame, source_domains: Sequence[str]) -> pd.DataFrame:
    """Train and dev with their images in the source domains: id, images."""
    import pandas as pd

    seen = trained_on(rows, source_domains)["split"]
    within = f" of the source domains {', '.join(source_domains)}" if source_domains else ""
    table = [(f"split {name}{within}", int((seen == name).sum())) for name in ("train", "dev")]
    return pd.DataFrame(table, columns=["id", "images"])


def domain_table(rows: pd.DataFrame, source_domains: Sequence[str]) -> pd.DataFrame:
    """Domains of the manifest and of the protocol: id, images."""
    import pandas as pd

    count = rows["domain"].value_counts().to_dict()
    names = sorted({*count, *source_domains})
    return pd.DataFrame([(name, int(count.get(name, 0))) for name in names], columns=["id", "images"])


def exposure_table(rows: pd.DataFrame, source_domains: Sequence[str]) -> pd.DataFrame:
    """Spoof types that are trained on, and how many training captions name each: id, captions."""
    import pandas as pd

    seen = trained_on(rows, source_domains)
    train = seen[(seen["split"] == "train") & (seen["label"] == "spoof")]
    train = train if MEDIA in train else with_media(train)
    there = set(train["spoof_type"].unique())
    kinds = [kind for kind in SPOOF_TYPES if kind in there]
    table = [(kind, int(((train[MEDIA] & BIT[kind]) > 0).sum())) for kind in kinds]
    return pd.DataFrame(table, columns=["id", "captions"])


def column_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per column of a looked-at manifest with captions: id, problems `missing`, `type`, `nulls`, or null."""
    import pandas as pd

    table: list[tuple[str, str | None, str | None, str | None]] = []
    for column in COLUMNS + CAPTION_COLUMNS + INSPECTION_COLUMNS:
        if column.name not in rows:
            table.append((column.name, f"missing ({column.about})", None, None))
            continue
        values = rows[column.name]
        nulls = 0 if column.nullable or column.name in ("licence", "caption") else int(values.isna().sum())
        wrong = None if holds(values, column.type) else f"{_kind(values)} instead of {column.type}"
        table.append((column.name, None, wrong, _empty(rows, values) if nulls else None))
    return pd.DataFrame(table, columns=["id", "missing", "type", "nulls"], dtype=object)


def _empty(rows: pd.DataFrame, values: pd.Series) -> str:
    """How many values are missing, and in which samples."""
    bad = rows[values.isna()]
    ids = bad["sample_id"] if "sample_id" in bad else bad.index.to_series().map("row {}".format)
    named = [f"row {i}" if id is None or id != id else str(id)[:ID_DIGITS] for i, id in ids.items()]
    return f"no value in {len(bad)} of {len(rows)} rows: sample {a_few(named)}"


def holds(values: pd.Series, type: str) -> bool:
    """Whether a column's values, nulls aside, are of the Arrow type that the manifest declares."""
    kind = _kind(values)
    if kind == "empty":
        return True
    if type == "string":
        return kind == "string"
    if type == "bool":
        return kind == "boolean"
    if type == "list<float>":
        return _all_numbers(values.dropna().to_numpy(dtype=object))
    # A column of integers with nulls arrives from Parquet as floats.
    return kind == "integer" or (kind in ("floating", "mixed-integer-float") and bool((values.dropna() % 1 == 0).all()))


def _kind(values: pd.Series) -> str:
    import pandas as pd

    return "empty" if values.isna().all() else str(pd.api.types.infer_dtype(values, skipna=True))


def _all_numbers(values: Any) -> bool:
    """Whether each value is a list or array of numbers."""
    import numpy as np

    if any(not issubclass(one, list | tuple | np.ndarray) for one in set(map(type, values))):
        return False
    types = {value.dtype if isinstance(value, np.ndarray) else np.asarray(value).dtype for value in values}
    return all(one.kind in "iuf" for one in types)
