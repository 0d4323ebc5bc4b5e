"""Names of columns and variables that hold a drifter, a time, a latitude, a longitude or a drogue."""

__all__ = ["BRACKETS", "ROLES", "WORDS", "drifter_names", "find_roles", "name_places", "part_of", "plain", "words"]

import re
from collections.abc import Mapping, Sequence

from pcl.errors import BadInputError, printable

NAMES = {
    "latitude": "latitude lat latitudedeg latdeg latdd gpslat gpslatitude positionlat ylat decimallatitude locationlat "
    "latn latituden latitudedd gpslatitudedeg latitudedegree latitudedegrees latitud breite breitengrad "
    "latsouth latnorth latitudesouth latitudenorth",
    "longitude": "longitude lon long lng longitudedeg londeg londd gpslon gpslong gpslongitude positionlon xlon "
    "decimallongitude locationlong locationlon lone longitudee longitudedd gpslongitudedeg longitudedegree "
    "longitudedegrees longitud laenge laengengrad lnge "
    "lngengrad lonw longitudew lonwest loneast longitudewest longitudeeast",
    "time": "time datetime dateutc timeutc datetimeutc utc timestamp timestamputc gpstime gpstimeutc obstime "
    "obsdatetime fixtime fixdatetime positiontime datadate datadateutc devicedatetime locdate locationdate timegmt "
    "dategmt datetimegmt isotime datehour date epoch unixtime timeofday basedatetime positiondatetime recordedat "
    "recordtime locationtime gpsdatetime gpsdate datetimestamp ts datum",
    "drifter": "id ids drifter drifterid dnumber drifternumber driftername trajectory trajectoryid trajid traj "
    "platform platformcode platformid platformidno platformnumber platformname buoy buoyid buoyname buoycode wmo wmoid "
    "wmoplatformcode imei deviceid device devicename deployid esn spotid messengername particle particleid "
    "individuallocalidentifier taglocalidentifier unitid assetid assetname serial serialnumber track trackid name mmsi "
    "ptt pttid argos argosid station stationid stationname unitname unitnumber commander commanders "
    "commid modem modemid ident identifier vessel vesselname objectid bouee boje boya",
    "drogue": "drogue drogued droguestatus drogueon drogueattached droguepresent droguepresence",
    "drogue_lost": "undrogued droguelostdate droguelost droguelosttime drogueoffdate droguelossdate",
}
ROLES = {role: tuple(names.split()) for role, names in NAMES.items()}
"""Names by role, the usual ones first, in small letters without anything between them."""
WORDS = {  # of a name that is none of the usual ones, if only one column has any of them
    "latitude": {"lat", "latitude"},
    "longitude": {"lon", "long", "lng", "longitude"},
    "time": {"time", "datetime", "timestamp", "utc"},
    "drifter": {"drifter", "buoy", "id"},
}
PLACE = re.compile(
    r"(?:gps|(?:[a-z]+[ _.-])*)(?P<role>latitude|latitud|lat|longitude|longitud|long|lng|lon|breite|l(?:ä|ae)nge)"
    r"(?P<part>[^0-9]*)"
)
PARTS = {  # of a place in columns of their own, by how long they are said
    ("degrees", "long"): ("deg", "degs", "degree", "degrees", "grad", "°"),
    ("minutes", "long"): ("min", "mins", "minute", "minutes", "minuten", "minutos", "'", "\u2032"),
    ("seconds", "long"): ("sec", "secs", "second", "seconds", "sekunden", "segundos", '"', "\u2033"),
    ("degrees", "double"): ("dd",),
    ("minutes", "double"): ("mm",),
    ("seconds", "double"): ("ss",),
    ("degrees", "letter"): ("d",),
    ("minutes", "letter"): ("m",),
    ("seconds", "letter"): ("s",),
}
BRACKETS = re.compile(r"[\[(](.*?)[\])]")  # what a name says of its unit or its zone
OPTIONAL = ("drifter", "drogue", "drogue_lost")


def find_roles(known: Sequence[str], given: Mapping[str, str], where: str) -> dict[str, str]:
    """Return which column has which role.

    Args:
        known: names of the columns.
        given: roles that the user names a column for.
        where: the file, for messages.

    Raises:
        BadInputError: there is no column for a role that is needed, or a named one is not there.

    Example:
        >>> find_roles(["D_number", "date_UTC", "Latitude", "Longitude", "battery"], {}, "a.csv")
        {'latitude': 'Latitude', 'longitude': 'Longitude', 'time': 'date_UTC', 'drifter': 'D_number'}
    """
    found: dict[str, str] = {}
    free = [name for name in known if name not in given.values()]
    places = [name for name in free if not _is_part(name, known)]
    for role in ROLES:
        if chosen := given.get(role):
            if chosen not in known:
                raise BadInputError(_missing(where, f"no column {chosen!r}", known, role))
            found[role] = chosen
        elif (one := _usual(role, places) or _by_words(role, places)) is not None:
            found[role] = one
        elif role not in OPTIONAL:
            raise BadInputError(_missing(where, f"no column that can be a {role}", known, role))
    return found


def drifter_names(known: Sequence[str]) -> list[str]:
    """Return the columns that may name drifters, the most usual names first."""
    order = {name: i for i, name in enumerate(ROLES["drifter"])}
    usual = sorted((name for name in known if plain(name) in order), key=lambda name: order[plain(name)])
    one = _by_words("drifter", [name for name in known if name not in usual])
    return usual + ([one] if one else [])


def name_places(known: Sequence[str], given: Mapping[str, str]) -> bool:
    """Return whether a line of names has those of a latitude and a longitude, usual ones or given."""
    return all((given[role] in known) if given.get(role) else _usual(role, known) for role in ("latitude", "longitude"))


def plain(name: str) -> str:
    """Return a name in small letters without units in brackets and anything between letters."""
    return re.sub(r"[^a-z0-9]", "", BRACKETS.sub("", name.strip().lower()))


def words(name: str) -> set[str]:
    """Return the words of a name, in small letters, without units in brackets."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", BRACKETS.sub("", name))
    return {*re.findall(r"[a-z]+", parted.lower())}


def part_of(name: str) -> tuple[str, str, str] | None:
    """Return the role of a column of degrees, minutes or seconds, which of them, and how it is said; None: no such.

    Example:
        >>> part_of("lat_min"), part_of("Lon [']"), part_of("LAT_DD"), part_of("lat")
        (('latitude', 'minutes', 'long'), ('longitude', 'minutes', 'long'), ('latitude', 'degrees', 'double'), None)
    """
    found = PLACE.fullmatch(name.strip().lower().replace("''", '"'))
    said = re.sub(r"decimal|dec|whole|[^a-z°'\"\u2032\u2033]", "", found["part"]) if found else ""
    part = next(((part, how) for (part, how), known in PARTS.items() if said in known), None)
    role = "latitude" if found and found["role"].startswith(("lat", "br")) else "longitude"
    return (role, *part) if part else None


def _is_part(name: str, known: Sequence[str]) -> bool:
    """Return whether a column is of minutes or seconds; lat_s is of the south unless lat_d is there."""
    role, part, how = part_of(name) or ("", "degrees", "")
    return part != "degrees" and (how != "letter" or any(part_of(one) == (role, "degrees", how) for one in known))


def _usual(role: str, known: Sequence[str]) -> str | None:
    """Return the first column that has a usual name, the most usual one: of times that of UTC, if there are two."""
    names = {plain(name): name for name in reversed(known)}
    first = next((name for name in ROLES[role] if name in names), None)
    if first is None:
        return None
    of_utc = (first + "utc", first + "gmt") if role == "time" else ()
    return next((names[name] for name in of_utc if name in names), names[first])


def _by_words(role: str, known: Sequence[str]) -> str | None:
    """Return the only column with a word of a role in its name."""
    some = [name for name in known if WORDS.get(role, set()) & words(name)]
    return some[0] if len(some) == 1 else None


def _missing(where: str, what: str, known: Sequence[str], role: str) -> str:
    columns = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return printable(f"{where} has {what}: it has {columns or 'none'}; name it with tracks.{role}=NAME")
