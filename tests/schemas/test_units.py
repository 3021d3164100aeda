import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtape.schemas.errors import UsageError
from ringtape.schemas.units import format_duration, format_size, parse_duration, parse_size

SCALES = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
SIZES = {
    "": 1,
    "B": 1,
    "k": 1 << 10,
    "K": 1 << 10,
    "KiB": 1 << 10,
    "kb": 1 << 10,
    "M": 1 << 20,
    "MB": 1 << 20,
    "G": 1 << 30,
    "GiB": 1 << 30,
    "T": 1 << 40,
}


@given(st.integers(0, 10**6), st.sampled_from(list(SCALES)), st.sampled_from(["", " ", "  "]))
def test_durations_are_read_exactly(number, unit, space):
    assert parse_duration(f"{space}{number}{space}{unit}{space}") == number * SCALES[unit]


@given(st.integers(0, (1 << 63) - 1))
def test_every_nanosecond_of_64_bits_can_be_written(number):
    assert parse_duration(f"{number}ns") == number
    assert parse_size(f"{number}") == number


@given(st.integers(0, 10**6), st.sampled_from(list(SIZES)))
def test_sizes_are_read_exactly(number, unit):
    assert parse_size(f"{number}{unit}") == number * SIZES[unit]


@pytest.mark.parametrize(
    ("text", "ns"), [("1.5ms", 1_500_000), (".5s", 500_000_000), ("2.s", 2_000_000_000), ("0", 0), ("0.1us", 100), ("2H", 7_200 * 10**9)]
)
def test_fractions_are_exact(text, ns):
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ms",
        "-1s",
        "+1s",
        "1e3s",
        "1,5s",
        "1 5s",
        "1.2.3s",
        "1x",
        "1sx",
        "inf",
        "nan",
        "\u0661s",
        "0x10",
        "9" * 400,
        "9" * 20,
        "1" + "0" * 19 + "ns",
        "9999999h",
        ".",
    ],
)
def test_what_is_no_duration_is_a_usage_error(text):
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "M", "-1", "1e3", "1 M M", "1X", "1PiB", "9" * 400, "99999999T", "1.5.5M", "nan"])
def test_what_is_no_size_is_a_usage_error(text):
    with pytest.raises(UsageError):
        parse_size(text)


@given(st.text(max_size=12))
def test_arbitrary_text_is_read_or_a_usage_error(text):
    for parse in (parse_duration, parse_size):
        try:
            value = parse(text)
        except UsageError as error:
            value, said = 0, error.what
        else:
            said = repr(text)
        assert 0 <= value < 1 << 63
        assert repr(text) in said


@given(st.floats(-1e18, 1e18, allow_nan=False))
def test_durations_are_shown_with_three_digits_of_what_they_are(ns):
    shown = format_duration(ns)
    match = re.fullmatch(r"-?(\d+(?:\.\d+)?) (ns|µs|ms|s|min|h)", shown)
    assert match, shown
    value = math.copysign(float(match[1]), ns) * SCALES[match[2]]
    assert value == pytest.approx(ns, rel=5.1e-3, abs=0.51)
    if match[2] in ("µs", "ms"):
        assert len(match[1].replace(".", "").lstrip("0") or "0") <= 3 or float(match[1]) == 1000
        assert float(match[1]) < 1000


@given(st.integers(0, 1 << 62))
def test_sizes_are_shown_with_three_digits_of_what_they_are(size):
    match = re.fullmatch(r"(\d+(?:\.\d+)?) (B|KiB|MiB|GiB|TiB)", format_size(size))
    scale = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[match[2]]
    assert float(match[1]) * (1 << scale) == pytest.approx(size, rel=5.1e-3, abs=0.51)


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (None, ""),
        (0, "0 ns"),
        (86, "86 ns"),
        (999, "999 ns"),
        (999.4, "999 ns"),
        (999.6, "1.00 µs"),
        (1000, "1.00 µs"),
        (9_994, "9.99 µs"),
        (9_996, "10.0 µs"),
        (99_960, "100 µs"),
        (999_400, "999 µs"),
        (999_600, "1.00 ms"),
        (1_500_000_000, "1.50 s"),
        (119e9, "119 s"),
        (121e9, "2.02 min"),
        (3 * 3600e9, "3.00 h"),
        (-1500, "-1.50 µs"),
        (math.nan, "nan ns"),
        (math.inf, "inf ns"),
    ],
)
def test_examples_of_durations(ns, shown):
    assert format_duration(ns) == shown


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1000 * 1024, "0.98 MiB"), (1 << 40, "1.00 TiB"), (math.nan, "nan B")]
)
def test_examples_of_sizes(size, shown):
    assert format_size(size) == shown
