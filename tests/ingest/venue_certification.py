"""What every venue must do, as tests: a new one subclasses `VenueCertification` and gives it samples.

docs/adding-a-venue.md goes through it card by card. The subclass stands in `test_<venue>_certification.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from venue_frame_certification import FrameCertification
from venue_history_certification import HistoryCertification
from venue_kline_certification import KlineCertification, KlineSample
from venue_repair_certification import RepairCertification
from venue_samples import Documented, Execution, Listed, Refusal

__all__ = [
    "Documented",
    "Execution",
    "KlineCertification",
    "KlineSample",
    "Listed",
    "Refusal",
    "VenueCertification",
    "certified",
]


class VenueCertification(FrameCertification, RepairCertification, HistoryCertification):
    """The suite. What a subclass has to give stands in `VenueSamples`."""


def certified() -> dict[str, type[VenueCertification]]:
    """The subclasses that there are, by the name of their venue."""
    for path in sorted(Path(__file__).parent.glob("test_*_certification.py")):
        importlib.import_module(path.stem)
    return {subclass.name: subclass for subclass in _below(VenueCertification)}


def _below(parent: Any) -> Iterator[type[VenueCertification]]:
    for subclass in parent.__subclasses__():
        if "name" in vars(subclass):
            yield subclass
        yield from _below(subclass)
