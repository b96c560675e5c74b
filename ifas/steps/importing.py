"""From a raw dataset to a revision: read, pack, check the rules that need no captions, register."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.errors import ValidationFailed

if TYPE_CHECKING:
    from ifas.data.pack import PackReport
    from ifas.data.registry import Published, Registry


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import made. `advisory`: broken rules that do not block."""

    packed: PackReport
    published: Published
    advisory: tuple[str, ...]


def import_dataset(
    layout: str, root: Path, *, name: str, out: Path, registry: Registry, licence: str, frames: str, workers: int | None
) -> Imported:
    """Packs `root` into `out`, validates and publishes it. A second call continues an interrupted one.

    Raises:
        ValidationFailed: a blocking rule is broken; nothing was registered.
        DataError, RegistryError: as `pack` and `Registry.publish` raise them.
    """
    from ifas.data.pack import pack

    packed = pack(layout, root, out, name=name, licence=licence, frames=frames, workers=workers)
    advisory = check_packed(out)
    published = registry.publish(out, message=f"{name}: imported from layout {layout}, {packed.rows} images")
    return Imported(packed=packed, published=published, advisory=advisory)


def check_packed(folder: Path) -> tuple[str, ...]:
    """Checks the rules that need no captions; returns the advisory ones that are broken.

    Raises:
        ValidationFailed: blocking rules are broken; the error has an example of each.
    """
    from ifas.core.config import ValidateConfig
    from ifas.core.manifest import COLUMNS, read_manifest
    from ifas.validation.rules import rules
    from ifas.validation.suite import check

    here = {column.name for column in COLUMNS}
    apply = [rule for rule in rules(ValidateConfig()) if rule.needs and here.issuperset(rule.needs)]
    findings = check(read_manifest(folder), apply)
    said = {one.rule.id: f"{one.rule.title}: {one.said}" for one in findings}
    blocking = [said[one.rule.id] for one in findings if one.blocks]
    if blocking:
        raise ValidationFailed(
            "\n  - ".join(["the packed dataset breaks blocking rules:", *blocking]),
            f"repair the raw dataset; see {folder}",
        )
    return tuple(said[one.rule.id] for one in findings if one.status == "failed")
