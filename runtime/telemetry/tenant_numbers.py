"""`TenantNumbers`: the tallies of a node's tenants, of which a bounded number have labels of their own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric

from .tenant_label import DEFAULT_LABELS, NOBODY, OTHER, tenant_label
from .tenant_tally import TenantTally

__all__ = ["TenantNumbers"]

KNOWN_PER_LABEL: Final = 10
FEWEST_KNOWN: Final = 1000
"""Tenants that are watched for each label, and at least, so that the busiest can be told from the rest."""
REGRADE_EVERY: Final = 60.0
"""Seconds between two looks at who should have a label, at scrapes; in this time a tenant's weight halves."""
ADVANTAGE: Final = 2.0
"""How many times as busy a tenant must be to take another's label: who comes and goes has series full of holes."""


class TenantNumbers:
    """The first tenants get labels as they come; once all are given, the busiest of late have them, by and by.

    A counter never goes back: see `TenantTally`. A tenant that gets a label again goes on from where it was; one that
    has been forgotten meanwhile, because ten times as many tenants as labels came by, begins at 0, as after a restart.
    """

    def __init__(self, labels: int = DEFAULT_LABELS, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`labels`: how many tenants may have one of their own; `clock` in seconds."""
        self.nobody = TenantTally(NOBODY)
        self.other = TenantTally(OTHER)
        self._labels = labels
        self._known: dict[str, TenantTally] = {}
        self._most_known = max(labels * KNOWN_PER_LABEL, FEWEST_KNOWN) if labels else 0
        self._given = 0
        self._clock = clock
        self._regraded = clock()
        self._forgot = float("-inf")

    def of(self, tenant: str) -> TenantTally:
        """The tally of the tenant that has sent a request."""
        tally = self._known.get(tenant)
        if tally is None:
            tally = self._meet(tenant)
        tally.weight += 1.0
        return tally

    def _meet(self, tenant: str) -> TenantTally:
        known = self._known
        if len(known) >= self._most_known:
            self._forget_if_due()
            if len(known) >= self._most_known:
                return self.other
        tally = known[tenant] = TenantTally(tenant_label(tenant), self.other)
        if self._given < self._labels:
            self._given += 1
            tally.sink = tally
        return tally

    def _regrade_if_due(self) -> None:
        """Give the labels to the busiest."""
        now = self._clock()
        if now - self._regraded < REGRADE_EVERY:
            return
        halved = 0.5 ** min((now - self._regraded) / REGRADE_EVERY, 60.0)
        self._regraded = now
        ranked = sorted(self._known.values(), key=_standing, reverse=True)
        for place, tally in enumerate(ranked):
            tally.sink = tally if place < self._labels else self.other
            tally.weight *= halved
        self._given = min(len(ranked), self._labels)

    def _forget_if_due(self) -> None:
        """Forget half of those that have no label, the idlest: there must be room for others to be met."""
        now = self._clock()
        if now - self._forgot < REGRADE_EVERY:
            return
        self._forgot = now
        idle = [name for name, tally in self._known.items() if not tally.labelled and not tally.streams]
        idle.sort(key=lambda name: self._known[name].weight)
        for name in idle[: (len(idle) + 1) // 2]:
            del self._known[name]

    # For whoever asks

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {"tenants_labelled": self._given}

    def collect(self, sessions: Mapping[str, int]) -> Iterable[Metric]:
        """The families for a scrape. `sessions`: how many of each tenant are in memory.

        Labels change hands after a scrape, so that whoever loses one has had shown what was counted under it.
        """
        tallies = [tally for tally in self._known.values() if tally.labelled]
        shown = [*tallies, self.other, self.nobody]
        calls = CounterMetricFamily(
            "understudy_tenant_calls",
            "Calls answered here, by what came of them.",
            None,
            ["tenant", "outcome"],
        )
        seconds = SummaryMetricFamily(
            "understudy_tenant_call_seconds", "How long they took; see call_seconds.", None, None, ["tenant"]
        )
        refusals = CounterMetricFamily(
            "understudy_tenant_refusals", "Requests that were refused here, by HTTP status.", None, ["tenant", "status"]
        )
        for tally in shown:
            for outcome, count in tally.calls.items():
                calls.add_metric([tally.label, outcome], count)
            if tally.timed:
                seconds.add_metric([tally.label], tally.timed, tally.seconds)
            for status, count in tally.refusals.items():
                refusals.add_metric([tally.label, str(status)], count)
        live = GaugeMetricFamily("understudy_tenant_sessions_live", "Sessions in memory.", None, ["tenant"])
        for label, count in self._by_label(sessions).items():
            live.add_metric([label], count)
        streams = GaugeMetricFamily(
            "understudy_tenant_streams_open", "Event streams that this node writes.", None, ["tenant"]
        )
        open_streams = {name: tally.streams for name, tally in self._known.items()}
        for label, count in self._by_label(open_streams, {OTHER: self.other.streams}).items():
            streams.add_metric([label], count)
        self._regrade_if_due()
        return (calls, seconds, refusals, live, streams)

    def _by_label(self, numbers: Mapping[str, int], more: Mapping[str, int] | None = None) -> dict[str, int]:
        """Numbers by tenant as numbers by label; 0 for those who have a label and none of what is counted."""
        found = Counter({tally.label: 0 for tally in self._known.values() if tally.labelled})
        found.update(more or {})
        for name, number in numbers.items():
            tally = self._known.get(name)
            found[tally.label if tally is not None and tally.labelled else OTHER] += number
        return found


def _standing(tally: TenantTally) -> float:
    return tally.weight * ADVANTAGE if tally.labelled else tally.weight
