"""Readers of raw dataset layouts. To add one, write a module with a `scan` and add a line to `READERS`."""

from ifas.core.errors import unknown_key
from ifas.data.readers.casia_mfsd import CasiaMfsd
from ifas.data.readers.casia_surf_3dmask import CasiaSurf3dMask
from ifas.data.readers.celeba_spoof import CelebASpoof
from ifas.data.readers.folder import Folder
from ifas.data.readers.hifimask import HiFiMask
from ifas.data.readers.hkbu_mars import HkbuMars
from ifas.data.readers.msu_mfsd import MsuMfsd
from ifas.data.readers.nuaa import Nuaa
from ifas.data.readers.oulu_npu import OuluNpu
from ifas.data.readers.replay_attack import ReplayAttack
from ifas.data.readers.rose_youtu import RoseYoutu
from ifas.data.readers.sample import RawSample, Reader, Refusal, Scan
from ifas.data.readers.siw import Siw
from ifas.data.readers.siw_m_v2 import SiwMV2
from ifas.data.readers.wmca import Wmca

READERS: dict[str, Reader] = {
    "casia-mfsd": CasiaMfsd(),
    "casia-surf-3dmask": CasiaSurf3dMask(),
    "celeba-spoof": CelebASpoof(),
    "folder": Folder(),
    "hifimask": HiFiMask(),
    "hkbu-mars": HkbuMars(),
    "msu-mfsd": MsuMfsd(),
    "nuaa": Nuaa(),
    "oulu-npu": OuluNpu(),
    "replay-attack": ReplayAttack(),
    "rose-youtu": RoseYoutu(),
    "siw": Siw(),
    "siw-m-v2": SiwMV2(),
    "wmca": Wmca(),
}


def reader(layout: str) -> Reader:
    """The reader of a layout. Raises ConfigError listing the known ones."""
    if layout not in READERS:
        raise unknown_key("layout", layout, READERS)
    return READERS[layout]


__all__ = ["READERS", "RawSample", "Reader", "Refusal", "Scan", "reader"]
