"""Layouts of tracepoints in a manifest: what is written comes back, what cannot be is refused."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtape.schemas.errors import TraceError
from ringtape.schemas.events import Event, EventField, Symbols, describe_events, parse_events
from ringtape.schemas.folder import TraceFolder
from tests.factory import make
from tests.tracepoints import SOFTIRQ, WAIT

EVENTS = [
    WAIT,
    SOFTIRQ,
    Event("a:empty", 7, ()),
    Event("b.c-d:x", 65535, (EventField("p", "const char *", 8, 8, 8, False, "scalar", string=0, show="hex"),)),
]
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), 1 << 64) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Every place in nested lists and objects."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def changed(value, path, new):
    result = copy.deepcopy(value)
    if not path:
        return new
    inner = result
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return result


def test_what_is_described_comes_back_through_json():
    described = json.loads(json.dumps(describe_events(EVENTS)))
    assert parse_events(described) == {event.name: event for event in EVENTS}


@given(st.data())
def test_a_description_with_anything_anywhere_is_refused_or_lies_inside_of_a_record(data):
    described = json.loads(json.dumps(describe_events(EVENTS)))
    path = data.draw(st.sampled_from(list(places(described))[1:]))
    described = changed(described, path, data.draw(anything))
    try:
        events = parse_events(described)
    except ValueError:
        return
    for event in events.values():
        assert 0 <= event.id < 1 << 16
        for field in event.fields:
            assert 8 <= field.offset <= field.offset + field.size <= 8192
            assert field.item in (1, 2, 4, 8)
            assert field.string < 8


FIELD = describe_events([SOFTIRQ])["irq:softirq_entry"]["fields"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 7}, "offset is 7"),
        ({"offset": 8190}, "size is 4"),
        ({"offset": 1 << 63}, "offset is"),
        ({"size": 8}, "scalar of 8 bytes with 4 each"),
        ({"size": -4}, "size is -4"),
        ({"item": 3, "size": 3}, "3 each"),
        ({"item": True}, "item is True"),
        ({"shape": "loc", "size": 8}, "loc of 8 bytes"),
        ({"shape": "tree"}, "shape 'tree'"),
        ({"shape": ["loc"]}, "shape"),
        ({"show": "html"}, "show 'html'"),
        ({"text": True}, "text True"),
        ({"string": 0}, "a pointer of 4 bytes"),
        ({"string": 8}, "string is 8"),
        ({"name": "a b"}, "without a name"),
        ({"name": "\x1b[31m"}, "without a name"),
        ({"symbols": {**FIELD["symbols"], "shift": 64}}, "shift is 64"),
        ({"symbols": {**FIELD["symbols"], "names": []}}, "no list of names"),
        ({"symbols": {**FIELD["symbols"], "names": [[1 << 63, "x"]]}}, "no value with its name"),
        ({"symbols": {**FIELD["symbols"], "names": [[1, "x" * 201]]}}, "no value with its name"),
        ({"symbols": {**FIELD["symbols"], "names": [[1, "x"]] * 5000}}, "too many"),
        ({"symbols": {**FIELD["symbols"], "mask": None}}, "mask None"),
    ],
)
def test_a_field_that_cannot_be_is_refused_with_what_is_wrong(change, message):
    body = {"irq:softirq_entry": {"id": 223, "fields": [{**FIELD, **change}]}}
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        parse_events(body)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"no-colon": {"id": 1, "fields": []}}, "event 'no-colon'"),
        ({"a:\x1b[0m": {"id": 1, "fields": []}}, "event"),
        ({"a:b": {"id": 65536, "fields": []}}, "id is 65536"),
        ({"a:b": {"id": 1, "fields": []}, "a:c": {"id": 1, "fields": []}}, "two events of one number"),
        ({"a:b": {"id": 1, "fields": [FIELD, FIELD]}}, "two fields of one name"),
        ({"a:b": {"id": 1, "fields": [FIELD] * 300}}, "too many"),
        ({"a:b": 3}, "no object"),
        ({f"a:{number}": {"id": number, "fields": []} for number in range(5000)}, "5000 events"),
    ],
)
def test_events_that_cannot_be_are_refused(described, message):
    with pytest.raises(ValueError, match=message):
        parse_events(described)


def test_a_trace_whose_header_lies_about_an_event_is_not_opened(tmp_path):
    lie = {"irq:softirq_entry": {"id": 223, "fields": [{**FIELD, "offset": 8192}]}}
    with pytest.raises(TraceError, match="'events' of the header: size is 4, not 0 to 0"):
        TraceFolder.open(make(tmp_path / "run.trace", header={"events": lie}))


def test_members_of_a_newer_version_are_passed_over():
    body = {"irq:softirq_entry": {"id": 223, "fields": [{**FIELD, "colour": "red"}], "since": 4}}
    assert parse_events(body) == {SOFTIRQ.name: SOFTIRQ}
    assert SOFTIRQ.fields[0].symbols == Symbols(False, 0, -1, "|", ((1, "TIMER"), (7, "SCHED")))
