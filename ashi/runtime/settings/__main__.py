"""Prints the text of `docs/settings.md`: python -m ashi.runtime.settings > docs/settings.md."""

from __future__ import annotations

import sys

from ashi.runtime.settings.document import settings_document

sys.stdout.write(settings_document())
