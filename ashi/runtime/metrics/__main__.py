"""Prints the text of `docs/metrics.md`: python -m ashi.runtime.metrics > docs/metrics.md."""

from __future__ import annotations

import sys

from ashi.runtime.metrics.document import metrics_document

sys.stdout.write(metrics_document())
