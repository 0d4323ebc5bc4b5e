"""Times as other people's files tell them: read as they were meant, or refused in a line with a remedy that works."""

import re

import numpy as np
import pandas as pd
import pytest

from pcl.errors import BadInputError
from pcl.problems.ocean.fixes.reading import read_fixes
from pcl.problems.ocean.fixes.times import to_seconds
from pcl.problems.ocean.reading.time import read_times

NUMBER = 8
TIMES = pd.date_range("2023-04-20 10:04:49", periods=NUMBER, freq="5h")
MINUTES, HOURS, DAYS = TIMES.floor("min"), TIMES.floor("h"), TIMES.normalize()
SIX_HOURS = pd.date_range("2023-04-20", periods=NUMBER, freq="6h")
LATER = pd.Timedelta("2h")


def seconds(times):
    return (times - pd.Timestamp("1970-01-01")).total_seconds().to_numpy()


def rows_of(tmp_path, head, form, times=TIMES, columns=None, **options):
    """Return the times of a table of which each row is written as ``form`` writes a time."""
    form = form if callable(form) else form.format
    lines = [f"{form(t=t, later=t + LATER)},{54.5 + 1e-4 * i:.4f},10.5" for i, t in enumerate(times)]
    head, _, units = head.partition("|")
    (tmp_path / "a.csv").write_text("\n".join([f"{head},lat,lon", *([units] if units else []), *lines]))
    return read_fixes([tmp_path / "a.csv"], columns or {}, **options).time_s


def part_of_day(t):
    return (t - t.normalize()) / pd.Timedelta("1D")


def check(found, times, atol=1e-3):
    np.testing.assert_allclose(found, seconds(times), rtol=0, atol=atol)


def refuse(tmp_path, match, head, form, **options):
    with pytest.raises(BadInputError, match=match):
        rows_of(tmp_path, head, form, **options)


@pytest.mark.parametrize("name", ["timestamp", "datetime", "gps_time", "obs_time", "time", "epoch"])
@pytest.mark.parametrize(
    ("head", "parts"),
    [
        ("year,month,day", "{t:%Y,%m,%d}"),
        ("year,month,day,hour", "{t:%Y,%m,%d,%H}"),
        ("year,doy", "{t:%Y,%j}"),
        ("date,hour", "{t:%Y-%m-%d,%H}"),
        ("date_utc,hour", "2020-01-01,{t:%H}"),
        ("date,hours", "2020-01-01,{t:%H%M}"),
    ],
)
def test_a_whole_time_wins_over_parts_of_it(tmp_path, name, head, parts):
    whole = (lambda t: f"{t.timestamp():.0f}") if name == "epoch" else (lambda t: f"{t:%Y-%m-%d %H:%M:%S}")
    check(rows_of(tmp_path, f"{name},{head}", lambda t, later: f"{whole(t)},{parts.format(t=t)}"), TIMES)


@pytest.mark.parametrize(
    ("head", "form", "times"),
    [
        ("date,hour", "{t},{t:%H}", TIMES),
        ("date,time", "{t:%Y-%m-%d} 00:00:00,{t:%H:%M:%S}", TIMES),
        ("date,time", "{t},{t:%H:%M:%S}", TIMES),
        ("date,time", "{t:%d.%m.%Y} {t.hour}:{t:%M},{t.hour}:{t:%M:%S}", TIMES),
        ("date,hour", "{t:%Y-%m-%d} 00:00,{t:%H}", HOURS),
    ],
)
def test_a_date_may_be_written_with_a_time_of_day(tmp_path, head, form, times):
    check(rows_of(tmp_path, head, form), times)


def test_a_date_whose_time_of_day_is_another_is_asked_for(tmp_path):
    refuse(tmp_path, r"such as tracks\.time=date", "date,time", "{later},{t:%H:%M:%S}")
    check(rows_of(tmp_path, "date,time", "{later},{t:%H:%M:%S}", columns={"time": "date"}), TIMES + LATER)


@pytest.mark.parametrize(
    ("form", "times"),
    [
        ("%Y%m%d,%H%M%S", TIMES),
        ("%Y%j,%H:%M", MINUTES),
        ("%d%m%Y,%H:%M:%S", TIMES),
        ("%d%m%y,%H%M%S", TIMES),
        ("%y%m%d,%H%M%S", TIMES),
        ("%y/%m/%d,%H:%M:%S", TIMES),
        ("%d/%m/%y,%H:%M:%S", TIMES),
        ("%y-%m-%d,%H:%M", MINUTES),
        ("%d.%m.%y,%H.%M.%S", TIMES),
        ("%m/%d/%Y,%H%M", MINUTES),
    ],
)
def test_dates_with_few_digits_are_read_if_one_order_makes_sense(tmp_path, form, times):
    check(rows_of(tmp_path, "date,time", lambda t, later: t.strftime(form)), times)


@pytest.mark.parametrize("form", ["%y/%m/%d,%H:%M:%S", "%d%m%y,%H%M%S", "%d.%m.%y,%H:%M"])
def test_dates_with_few_digits_of_one_day_are_refused(tmp_path, form):
    times = pd.date_range("2023-04-20 10:04", periods=NUMBER, freq="h")
    refuse(tmp_path, "may have day or year first", "date,time", lambda t, later: t.strftime(form), times=times)
    times = pd.date_range("2011-11-11 10:04", periods=NUMBER, freq="h")
    refuse(tmp_path, "may have day, month or year first", "date,time", lambda t, later: t.strftime(form), times=times)


ZONES = ["date,time (UTC+2)", "date (+02:00),time", "date,time_gmt+2", "date,time|,+02:00,deg,deg"]


@pytest.mark.parametrize("head", [*ZONES, "date [UTC+2h],time [UTC+2h]"])
def test_a_zone_counts_where_date_and_time_of_day_are_apart(tmp_path, head):
    check(rows_of(tmp_path, head, "{later:%Y-%m-%d,%H:%M:%S}"), TIMES)
    check(rows_of(tmp_path, head, "{later:%Y-%m-%d,%H:%M:%S}", time_zone="America/New_York"), TIMES)


@pytest.mark.parametrize(
    "head",
    [
        "date (local),time (local)",
        "date [CEST],time [CEST]",
        "date,time|,CEST,deg,deg",
        "date,local_time",
        "date_LT,time",
    ],
)
def test_a_zone_of_date_and_time_of_day_that_is_not_known_is_asked_for(tmp_path, head):
    refuse(tmp_path, r"such as tracks\.time_zone=Europe/Berlin", head, "{later:%Y-%m-%d,%H:%M:%S}")
    check(rows_of(tmp_path, head, "{later:%Y-%m-%d,%H:%M:%S}", time_zone="Europe/Berlin"), TIMES)


def test_parts_of_a_time_may_say_their_zone_and_must_say_one(tmp_path):
    refuse(tmp_path, r"tracks\.time_zone=Europe/Berlin", "year,month,day,hour (local)", "{t:%Y,%m,%d,%H}")
    refuse(tmp_path, "one zone, in one column", "date_utc,time (local)", "{t:%Y-%m-%d},{later:%H:%M}")


HEADS = [
    *("time_UTC+2", "time_gmt+2", "time (UTC+2h)", "time (UTC + 2)", "time [UTC+2 hours]", "time (CEST UTC+02:00)"),
    *("time (Europe/Berlin)", "time Europe/Berlin"),
]


@pytest.mark.parametrize("head", [*HEADS, "time|+02:00,deg,deg", "time|Europe/Berlin,deg,deg"])
def test_zones_in_heads_are_read(tmp_path, head):
    check(rows_of(tmp_path, head, "{later}"), TIMES)


@pytest.mark.parametrize("said", ["_CET", " PST", "_BST", "_LT", " (MESZ)", " [MEZ]", " (MSK)", " (lokal)", "_cest"])
def test_names_of_zones_in_heads_are_asked_for(tmp_path, said):
    refuse(tmp_path, r"such as tracks\.time_zone=Europe/Berlin", f"time{said}", "{later}")
    check(rows_of(tmp_path, f"time{said}", "{later}", time_zone="Europe/Berlin"), TIMES)
    check(rows_of(tmp_path, f"time{said}", "{later}+02:00"), TIMES)


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ("date,time,tz", "{later:%Y-%m-%d,%H:%M:%S},+02:00"),
        ("datetime,utc_offset", "{later},2"),
        ("datetime,UTC offset", "{later},2.0"),
        ("datetime,timezone", "{later},Europe/Berlin"),
        ("datetime,tz", "{t},UTC"),
        ("datetime,tz", "{later}+02:00,CEST"),
        ("time_utc,tz", "{t},+02:00"),
    ],
)
def test_zones_may_have_a_column_of_their_own(tmp_path, head, form):
    check(rows_of(tmp_path, head, form), TIMES)


def test_each_row_may_have_its_zone(tmp_path):
    zones = {20: ("+02:00", LATER), 21: ("UTC", 0 * LATER)}
    found = rows_of(tmp_path, "time,tz", lambda t, later: f"{t + zones[t.day][1]},{zones[t.day][0]}")
    check(found, TIMES)
    refuse(tmp_path, r"tz has times in 'CEST'.*tracks\.time_zone=", "time,tz", "{later},CEST")
    check(rows_of(tmp_path, "time,tz", "{later},CEST", time_zone="Europe/Berlin"), TIMES)


@pytest.mark.parametrize("head", ["time (UTC)", "time_utc", "timestampUTC", "time|UTC,degrees_north,degrees_east"])
def test_a_zone_that_is_given_is_not_of_times_in_utc(tmp_path, head):
    check(rows_of(tmp_path, head, "{t}", time_zone="Europe/Berlin"), TIMES)


@pytest.mark.parametrize(
    ("form", "times"),
    [
        ("%Y%m%d%H", HOURS),
        ("%Y%m%d%H%M", MINUTES),
        ("%Y%m%d%H%M%S", TIMES),
        ("%Y%j", DAYS),
    ],
)
def test_numbers_that_are_dates(tmp_path, form, times):
    check(rows_of(tmp_path, "time", lambda t, later: t.strftime(form)), times)


def test_a_number_that_is_no_date_has_no_time():
    found = to_seconds([*(2_023_042_000 + hour for hour in range(20)), 2_023_049_999], "a.csv: time")
    check(found[:20], pd.date_range("2023-04-20", periods=20, freq="h"))
    assert np.isnan(found[20])


@pytest.mark.parametrize("form", ["%y%m%d%H%M", "%d%m%y%H%M"])
def test_numbers_that_may_be_dates_or_seconds_are_refused(tmp_path, form):
    refuse(tmp_path, r"or say tracks\.time_units='seconds since 1970", "time", lambda t, later: t.strftime(form))
    found = rows_of(
        tmp_path, "time", lambda t, later: t.strftime(form), time_units="seconds since 1970-01-01", times=TIMES
    )
    np.testing.assert_array_equal(found, [float(t.strftime(form)) for t in TIMES])


def test_days_with_decimals(tmp_path):
    found = rows_of(
        tmp_path, "time", lambda t, later: f"{t:%Y%m%d}.{(t - t.normalize()) / pd.Timedelta('1D') * 1e6:06.0f}"
    )
    check(found, TIMES, atol=0.1)
    refuse(tmp_path, "may be hours or parts of a day", "time", "{t:%Y%m%d.%H}")


@pytest.mark.parametrize(
    ("head", "form", "times"),
    [
        ("date,hour", "{before:%Y-%m-%d},{hour}", SIX_HOURS),
        ("year,month,day,hour", "{before:%Y,%m,%d},{hour}", SIX_HOURS),
        ("date,time", "{before:%Y-%m-%d},{hour}{t:%M}", SIX_HOURS),
        ("date,time", "{before:%Y-%m-%d},{hour}{t:%M%S}", SIX_HOURS),
        ("time", "{before:%Y-%m-%d} {hour}:{t:%M}", SIX_HOURS),
        ("time", "{before:%d.%m.%Y} {hour}:{t:%M:%S}", SIX_HOURS),
        ("date,hour", "{t:%Y-%m-%d,%H%M}", MINUTES),
        ("year,month,day,hour", "{t:%Y,%m,%d,%H%M}", MINUTES),
    ],
)
def test_the_last_hour_of_a_day_may_be_24(tmp_path, head, form, times):
    def written(t, later):
        return form.format(t=t, before=t - pd.Timedelta("1s"), hour=t.hour or 24)

    check(rows_of(tmp_path, head, written, times=times), times)


@pytest.mark.parametrize(
    ("head", "form", "what"),
    [
        ("date,hour,minute", "{t:%Y-%m-%d,%H},75", "minute holds 75"),
        ("date,hour", "{t:%Y-%m-%d},1099", "hour holds 1099"),
        ("date,hour", "{t:%Y-%m-%d},30", "hour holds 30"),
        ("date,hour,minute", "{t:%Y-%m-%d},24,30", "hour has 24"),
        ("year,month,day,hour,minute", "{t:%Y,%m,%d},10.5,30", "hour has decimals"),
        ("year,month,day", "{t:%Y},13,1", "month holds 13"),
        ("year,doy", "{t:%Y},400", "doy holds 400"),
        ("year,month,day,hour", "123,{t:%m,%d,%H}", "year holds 123"),
    ],
)
def test_parts_out_of_their_range_are_refused(tmp_path, head, form, what):
    refuse(tmp_path, what, head, form)


@pytest.mark.parametrize("decimals", [3, 5])
def test_days_of_julius_caesar_beside_a_year(tmp_path, decimals):
    def form(t, later):
        return f"{t:%Y},{t.to_julian_date():.{decimals}f}"

    refuse(tmp_path, r"tracks\.time=julianday tracks\.time_units=julian", "year,julianday", form)
    found = rows_of(tmp_path, "year,julianday", form, columns={"time": "julianday"}, time_units="julian")
    check(found, TIMES, atol=60)


def test_parts_of_a_day_and_hours_with_a_point(tmp_path):
    check(rows_of(tmp_path, "date,time", lambda t, later: f"{t:%Y-%m-%d},{part_of_day(t):.6f}"), TIMES, atol=1)
    refuse(tmp_path, "may be decimals of an hour or its minutes", "date,time", "{t:%Y-%m-%d,%H.%M}")
    halves = pd.date_range("2023-04-20", periods=NUMBER, freq="30min")
    check(
        rows_of(tmp_path, "date,time", lambda t, later: f"{t:%Y-%m-%d},{t.hour + t.minute / 60}", times=halves), halves
    )


@pytest.mark.parametrize(("units", "day"), [("excel", 25_569), ("days since 1950-01-01", 7305), ("matlab", 719_529)])
def test_days_with_decimal_commas(tmp_path, units, day):
    def form(t, later):
        return f'"{t.timestamp() / 86_400 + day:.6f}"'.replace(".", ",")

    check(rows_of(tmp_path, "time", form, time_units=units), TIMES, atol=1)
    refuse(tmp_path, "say what they are, such as", "time", form)


PLAIN = ["+02:00", "(UTC+2)", "UTC +2h", "+2h", "+ 2:00", "[UTC+2]", "GMT+0200", "\N{MINUS SIGN}02:00"]


@pytest.mark.parametrize("zone", PLAIN)
def test_offsets_in_units_of_netcdf(zone):
    found, _, _ = read_times(np.array([0.0]), {"units": f"hours since 1970-01-01 00:00:00 {zone}"}, "a.nc: time")
    assert found.tolist() == [7200.0 if "\N{MINUS SIGN}" in zone else -7200.0]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "LT", "local time", "UTC-6 (CST)", "CET", "+99:00"])
def test_other_zones_in_units_of_netcdf_are_refused(zone):
    with pytest.raises(BadInputError, match="an offset from UTC, such as"):
        read_times(np.array([0.0]), {"units": f"hours since 1970-01-01 00:00:00 {zone}"}, "a.nc: time")


def test_years_of_two_digits_and_halves_of_a_day(tmp_path):
    check(rows_of(tmp_path, "yr,mo,dd,hh", "{t:%y,%m,%d,%H}"), HOURS)
    turn = pd.date_range("1999-12-31", periods=NUMBER, freq="5h")
    check(rows_of(tmp_path, "yr,mo,dd,hh", "{t:%y,%m,%d,%H}", times=turn), turn)
    check(rows_of(tmp_path, "date,time,am_pm", "{t:%Y-%m-%d,%I:%M:%S,%p}"), TIMES)
    check(rows_of(tmp_path, "year,month,day,time,AM/PM", "{t:%Y,%m,%d,%I:%M,%p}"), MINUTES)


@pytest.mark.parametrize("head", ["date,hora", "Date,Heure", "Datum,Uhrzeit", "date,gps_time"])
def test_times_of_day_have_other_names(tmp_path, head):
    check(rows_of(tmp_path, head, "{t:%Y-%m-%d,%H:%M:%S}"), TIMES)


def test_a_time_of_day_that_nobody_knows_is_asked_for(tmp_path):
    refuse(tmp_path, r"such as tracks\.time=kl", "date,kl", "{t:%Y-%m-%d,%H:%M:%S}")
    check(rows_of(tmp_path, "date,kl", "{t:%Y-%m-%d,%H:%M:%S}", columns={"time": "kl"}), TIMES)
    check(rows_of(tmp_path, "date,kl", "{t:%Y-%m-%d,%H:%M:%S}", columns={"time": "date"}), DAYS)


def test_hours_with_units_are_no_times_of_day(tmp_path):
    found = rows_of(
        tmp_path,
        "date,time",
        lambda t, later: f"2023-04-20,{(t - TIMES[0]) / pd.Timedelta('1h')}",
        columns={"time": "time"},
        time_units=f"hours since {TIMES[0]}",
    )
    check(found, TIMES)


def test_a_clock_of_another_zone_than_that_of_an_epoch_is_asked_for(tmp_path):
    def form(t, later):
        return f"{later},{t.timestamp():.0f}"

    refuse(tmp_path, r"datetime is 2 h ahead of epoch.*tracks\.time=epoch", "datetime,epoch", form)
    check(rows_of(tmp_path, "datetime,epoch", form, columns={"time": "epoch"}), TIMES)
    check(rows_of(tmp_path, "datetime,epoch", form, time_zone="Europe/Berlin"), TIMES)
    check(rows_of(tmp_path, "datetime,epoch", lambda t, later: f"{t},{t.timestamp():.0f}"), TIMES)


@pytest.mark.parametrize(
    ("head", "form", "times"),
    [
        ("year,month,day,hhmm", "{t:%Y,%m,%d,%H%M}", MINUTES),
        ("year,month,day,time", "{t:%Y,%m,%d,%H:%M:%S}", TIMES),
        ("year,doy,time", "{t:%Y,%j,%H%M%S}", TIMES),
        ("date,time", "{t:%Y-%m-%d,%Hh%M}", MINUTES),
    ],
)
def test_times_of_day_beside_parts_of_a_date(tmp_path, head, form, times):
    check(rows_of(tmp_path, head, form), times)
    if "hhmm" in head:
        check(rows_of(tmp_path, head, form, columns={"time": "hhmm"}), times)


@pytest.mark.parametrize("missing", ["", "-", "nan", "NULL"])
def test_missing_times_do_not_hide_what_the_others_are(tmp_path, missing):
    def form(t, later):
        return missing if t in TIMES[::3] else f"{t.timestamp():.1f}"

    for head in ("time", "time|s,deg,deg"):
        found = rows_of(tmp_path, head, form)
        assert np.isnan(found[::3]).all()
        np.testing.assert_allclose(np.delete(found, [0, 3, 6]), np.delete(seconds(TIMES), [0, 3, 6]))


def test_epochs_of_lost_drogues_may_be_missing(tmp_path):
    lost = TIMES[3]
    rows = [
        f"{name},{t},5{i},10,{lost.timestamp() if name == 'b' else ''}" for i, name in enumerate("ab") for t in TIMES
    ]
    (tmp_path / "a.csv").write_text("\n".join(["id,time,lat,lon,drogue_lost_date", *rows]))
    found = read_fixes([tmp_path / "a.csv"], {})
    np.testing.assert_array_equal(found.drogued, [*[True] * NUMBER, *(lost > TIMES)])


@pytest.mark.parametrize("text", ["", "2023-04-20T10:04:60", "20.04.2023 25:00", "10:04", "20/13/2023 10:00"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(BadInputError, match=re.escape("no times that can be read")):
        to_seconds([text] * NUMBER, "a.csv: time")
