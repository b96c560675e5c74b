"""Sentences that name an attack medium."""

from __future__ import annotations

#: Spoof type -> sentences that name its medium; each holds words of one spoof type only.
MEDIA: dict[str, tuple[str, ...]] = {
    "print": (
        "It looks like a photo printed on paper.",
        "This seems to be a sheet of paper with a face on it.",
        "It may be a printed photo.",
    ),
    "replay": (
        "It looks like a photo of a screen.",
        "This seems to be a face on the screen of a device.",
        "It may be a picture on a display.",
    ),
    "mask": (
        "It looks like a mask.",
        "This seems to be a person who wears a mask.",
        "It may be a mask over the face.",
    ),
    "mannequin": ("It looks like a mannequin.", "This seems to be a dummy."),
}
