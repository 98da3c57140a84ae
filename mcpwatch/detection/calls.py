"""One call that is logged more than once: when it begins and when it ends, or by two logs.

It counts once. Records are of one call if they have its id, name the same tool, and show the same parameters, as far
as both show them. An id alone is not enough: a server that gives every call the same one, or is made to, would hide
all calls but the first.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import orjson

from mcpwatch.event import AuditEvent
from mcpwatch.formats.fields import ABSENT
from mcpwatch.policy.params import cut_at, withheld


class Call(NamedTuple):
    """A call as one record tells it from others, in numbers that are the same for equal ones.

    Attributes:
        named: Its id and its tool.
        whole: The parameters too; None where the record shows none, or not all of them.
    """

    named: int
    whole: int | None

    def of(self, who: int) -> Call:
        """The call as one of somebody, where callers share what is remembered."""
        return Call(hash((who, self.named)), None if self.whole is None else hash((who, self.whole)))


def call_of(event: AuditEvent, digest: int | None = None) -> Call | None:
    """The call that a record is of; None where it has no id. `digest` is that of its parameters, if it is at hand."""
    call_id, params = event.call_id, event.params
    if call_id is None or call_id in ABSENT:
        return None
    named = hash((call_id, event.tool))
    if not params or hides_something(params):
        return Call(named, None)
    digest = digest_of(params) if digest is None else digest
    return Call(named, None if digest is None else hash((named, digest)))


def logged_before(calls: dict[int, int], call: Call, time_ns: int, keep: int) -> bool:
    """Whether a call was logged less than `keep` (ns) away, by `calls`, which takes note of it."""
    named, whole = call
    any_of_it, without = named, ~named
    if whole is None:
        again = _near(calls, any_of_it, time_ns, keep)
        said = without
    else:
        again = _near(calls, whole, time_ns, keep) or _near(calls, without, time_ns, keep)
        said = whole
    for number in (any_of_it, said):
        near = _near(calls, number, time_ns, keep)
        calls[number] = max(calls[number], time_ns) if near else time_ns
    return again


def _near(calls: dict[int, int], number: int, time_ns: int, keep: int) -> bool:
    last = calls.get(number)
    return last is not None and -keep < time_ns - last < keep


def digest_of(params: dict[str, object]) -> int | None:
    """A number that is the same for equal parameters, in whatever order; None for those nested too deep."""
    try:
        return hash(orjson.dumps(params, option=orjson.OPT_SORT_KEYS))
    except TypeError:  # half a surrogate pair, a number beyond 64 bits, deeper than that
        pass
    try:
        return hash(json.dumps(params, sort_keys=True))
    except RecursionError:
        return None


def hides_something(params: dict[str, object] | None) -> bool:
    """Whether the log withholds a part of the parameters, so that different ones look the same."""
    return any(
        isinstance(value, str) and (withheld(value) or cut_at(value) is not None)
        for value in (params or {}).values()
    )
