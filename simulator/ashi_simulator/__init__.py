"""A venue on this machine, to test a live feed against. It misbehaves on command.

It speaks a venue's protocol and enforces its limits. It is written from the venues' documentation and shares no code
with the parsers and live venues that it tests: what is to happen again is handed to it as trades.
"""

from __future__ import annotations

from ashi_simulator.executions import TrueTrade
from ashi_simulator.faults import FAULTS, possible_faults
from ashi_simulator.process import VenueSimOptions, run_venue_sim
from ashi_simulator.rules import DEFAULT_MARKETS, RULES, Rules, check_venue
from ashi_simulator.script import Step, random_script, read_script
from ashi_simulator.server import Simulator, websocket_path

__all__ = [
    "DEFAULT_MARKETS",
    "FAULTS",
    "RULES",
    "Rules",
    "Simulator",
    "Step",
    "TrueTrade",
    "VenueSimOptions",
    "check_venue",
    "possible_faults",
    "random_script",
    "read_script",
    "run_venue_sim",
    "websocket_path",
]
