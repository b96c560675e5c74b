"""Text beside the face: the status bar of a phone, the caption of a printed page. Read by RapidOCR (PP-OCR, ONNX)."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any

from ifas.captioning.ramp import ramp
from ifas.captioning.specialists import Measurement

if TYPE_CHECKING:
    from ifas.captioning.measure import Measured

#: Text is looked for only where a straight border is likely: reading takes as long as all other measurements together.
LEAST_BORDER = 0.35
#: Shortest text and lowest score that count; single letters are found in any texture.
SHORTEST, SUREST = 3, 0.8


#: A reader keeps state while it reads, so each thread has its own.
_OWN = local()


def _reader() -> Any:
    if not hasattr(_OWN, "reader"):
        _OWN.reader = _new_reader()
    return _OWN.reader


def _new_reader() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,
            "Det.limit_type": "max",
            "Det.limit_side_len": 384,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


class ScreenText:
    """Characters read outside the face."""

    name = "screen text"
    clause = "small letters stand beside the face"
    words = ("letters", "text", "writing")
    supports = frozenset({"print", "replay"})
    refutes = frozenset[str]()

    def measure(self, seen: Measured) -> Measurement:
        """Said from three characters on."""
        import numpy as np

        if seen.values["border"] < LEAST_BORDER:
            return Measurement(0.0, 0.0)
        view = seen.view
        picture = np.rint(view.rgb * 255).astype(np.uint8)
        x0, y0, x1, y1 = view.face
        # The face is covered, as the reader takes wrinkles and teeth for letters.
        picture[y0:y1, x0:x1] = picture.mean(axis=(0, 1)).astype(np.uint8)
        read = _reader()(np.ascontiguousarray(picture[..., ::-1]))
        pairs = zip(read.txts or (), read.scores or (), strict=True)
        found = [text for text, score in pairs if score >= SUREST and len(text) >= SHORTEST and text.isascii()]
        count = float(sum(len(text) for text in found))
        return Measurement(count, ramp(count, 1.0, 5.0))


SPECIALIST = ScreenText()
