"""The conformance suite: what every store must do. A store that passes it is a store.

A test module for a store gives the fixtures `clock`, `world` (opens stores on one data set, as several
processes would) and `store` (one of them, joined as replica `r1`), and a class that inherits `StoreContract`.
"""

from __future__ import annotations

from store.contract_attempts import AppendContract, ClaimContract, SettleContract
from store.contract_create import CreateContract
from store.contract_outside import (
    AnswerContract,
    LifeContract,
    ListContract,
    SteerContract,
    SweepContract,
    WatchContract,
)
from store.contract_releases import ReleaseContract, TimeContract
from store.contract_wire import SessionContract, StreamContract


class AttemptContract(CreateContract, ClaimContract, AppendContract, SettleContract):
    """The life of an attempt."""


class OutsideContract(AnswerContract, SteerContract, SweepContract, ListContract, WatchContract, LifeContract):
    """What comes from outside."""


class SharedContract(ReleaseContract, TimeContract):
    """What several replicas, releases and clocks need of one store."""


class StoreContract(AttemptContract, OutsideContract, SharedContract, SessionContract, StreamContract):
    """All of it."""
