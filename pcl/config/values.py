"""Values as people write them: text is used as it was typed, anything else is parsed by the type of its key.

The same rules hold on the command line and in run files, which are YAML without YAML's own guesses: there a date, a
version number or ``yes`` are text if their key is a text, and refused if it is not.
"""

__all__ = ["Given", "parse", "read_yaml", "short"]

import math
import re
import types
import unicodedata
from typing import Any, Union, get_args, get_origin

import yaml

Given = str | list["Given"] | dict[str, "Given"]

MOST_BYTES = 1 << 20
MOST_NODES = 20_000
MOST_DEPTH = 16
LONGEST_INTEGER = 100  # digits, with zeros before it
INTEGER = re.compile(r"[+-]?([0-9]+)")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
ITEM = re.compile(r"""\s*(?:"((?:[^"]|"")*)"\s*|'((?:[^']|'')*)'\s*|([^\s,\[\]"'][^,\[\]]*))(?:,|\Z)""")
NOT_IN_TEXT = {"Cc": "a control character", "Cs": "half a character", "Zl": "a line end", "Zp": "a line end"}


def parse(given: Given, kind: Any) -> Any:
    """Value of a text, or of a list of texts, as its type.

    - ``str``: the text as it is, with blanks, quotes, ``#`` and ``$``; it holds no control character.
    - ``int``: decimal digits with or without a sign, less than 2^63.
    - ``float``: finite, decimal or scientific.
    - ``bool``: ``true`` or ``false``.
    - ``X | None``: ``null``, or X.
    - ``dict[str, X]``: a mapping, ``{a: 1, b: [2, 3]}``.
    - ``list[X]``: ``[a, b]``; an item needs quotes, doubled within, if it holds a comma or a bracket, or begins with a
      quote, or begins or ends with a blank.

    Args:
        given: text, or the items of a list.
        kind: type.

    Raises:
        ValueError: the text is none of that type: the message is the rule.

    Example:
        >>> parse("2024_01_05 #2", str), parse("010", int), parse("3e-4", float), parse("null", bool | None)
        ('2024_01_05 #2', 10, 0.0003, None)
        >>> parse("[/data/*.nc, '/a, b']", list[str]), parse("[2, 8]", int | list[int])
        (['/data/*.nc', '/a, b'], [2, 8])
        >>> parse("1e3", int)
        Traceback (most recent call last):
        ValueError: it must be an integer, such as 3
    """
    if get_origin(kind) in (Union, types.UnionType):
        return _parse_one_of(given, get_args(kind))
    if get_origin(kind) is dict:
        found = read_yaml(given.encode()) if isinstance(given, str) and given.lstrip().startswith("{") else given
        if not isinstance(found, dict):
            raise ValueError("it must be a mapping of keys, such as {width: 64}")
        return found
    if get_origin(kind) is list:
        items = given if isinstance(given, list) else _items(given) if isinstance(given, str) else None
        if items is None:
            raise ValueError("it must be a list, such as [a, b]")
        return [parse(item, *get_args(kind)) for item in items]
    if not isinstance(given, str):
        raise ValueError("it must be one value")
    return PARSE[kind](given)


def _parse_one_of(given: Given, kinds: tuple[Any, ...]) -> Any:
    """Return a value that may be null, or one value or a list of them."""
    if types.NoneType in kinds and given in ("null", "~"):
        return None
    is_list = isinstance(given, list) or (isinstance(given, str) and given.lstrip().startswith("["))
    for kind in kinds:
        if kind is not types.NoneType and (get_origin(kind) is list) == is_list:
            return parse(given, kind)
    return parse(given, kinds[0])


def _items(text: str) -> list[Given] | None:
    """Return the items of ``[a, b]``, None where a text is no list."""
    text = text.strip()
    if len(text) < 2 or text[0] != "[" or text[-1] != "]":
        return None
    inside, position, items = text[1:-1], 0, list[Given]()
    while inside[position:].strip() or inside[position - 1 : position] == ",":
        found = ITEM.match(inside, position)
        if not found:
            raise ValueError(
                "it must be a list, such as [a, b]: quote an item that holds a comma, a bracket or a quote"
            )
        double, single, bare = found.groups()
        items.append(
            bare.rstrip() if bare else single.replace("''", "'") if double is None else double.replace('""', '"')
        )
        position = found.end()
    return items


def _text(text: str) -> str:
    for character in text:
        if not character.isprintable() and (what := NOT_IN_TEXT.get(unicodedata.category(character))):
            raise ValueError(f"text must not hold {what}")
    return text


def _integer(text: str) -> int:
    digits = INTEGER.fullmatch(text.strip(" "))
    if not digits:
        raise ValueError("it must be an integer, such as 3")
    value = int(text) if len(digits[1]) <= LONGEST_INTEGER else 2**63
    if not -(2**63) <= value < 2**63:
        raise ValueError("it must be less than 2^63")
    return value


def _number(text: str) -> float:
    value = float(text) if NUMBER.fullmatch(text.strip(" ")) else math.nan
    if not math.isfinite(value):
        raise ValueError("it must be a finite number, such as 0.03 or 3e-4")
    return value


def _truth(text: str) -> bool:
    if text.strip(" ") not in ("true", "false"):
        raise ValueError("it must be true or false")
    return text.strip(" ") == "true"


PARSE = {str: _text, int: _integer, float: _number, bool: _truth}


def read_yaml(content: bytes) -> Given:
    r"""Texts, lists and mappings of a YAML file: nothing in it has a type of its own, and nothing refers to another.

    Args:
        content: of the file, UTF-8.

    Returns:
        What the file holds, ``{}`` where it is empty.

    Raises:
        ValueError: the file is too large or too deep, is no YAML, holds a key twice, or says more than texts: tags,
            anchors, several documents.

    Example:
        >>> read_yaml(b"name: 2024_01_05  # a date\nstart: [0.75, '1']")
        {'name': '2024_01_05', 'start': ['0.75', '1']}
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"the file has {len(content):,} bytes, the most is {MOST_BYTES:,}")
    try:
        return _composed(content.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"the file is not UTF-8 from byte {error.start:,} on") from error
    except yaml.MarkedYAMLError as error:
        raise _at(error.problem_mark, error.problem or "it is no YAML") from error
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(f"the file is no YAML: {' '.join(str(error).split())}") from error


def _composed(text: str) -> Given:
    """Put the events of a YAML text together, without recursion."""
    open_nodes: list[tuple[list[Given] | dict[str, Given], list[str]]] = []  # each with the key that waits for a value
    found: list[Given] = []
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        node: Given
        match event:
            case yaml.AliasEvent():
                raise _at(event.start_mark, "aliases are not read: write the value out")
            case yaml.NodeEvent(anchor=str()):
                raise _at(event.start_mark, "anchors are not read: write the value out")
            case yaml.ScalarEvent(tag=str()) | yaml.CollectionStartEvent(tag=str()):
                raise _at(event.start_mark, "tags (!) are not read: a value is parsed by the type of its key")
            case yaml.ScalarEvent():
                node = event.value
            case yaml.CollectionStartEvent():
                node = {} if isinstance(event, yaml.MappingStartEvent) else []
            case yaml.CollectionEndEvent():
                open_nodes.pop()
                continue
            case _:
                continue
        if number > MOST_NODES or len(open_nodes) > MOST_DEPTH:
            raise _at(event.start_mark, f"more than {MOST_NODES:,} values, or {MOST_DEPTH} in each other")
        _put(node, event, open_nodes, found)
        if not isinstance(node, str):
            open_nodes.append((node, []))
    if len(found) > 1:
        raise ValueError("the file holds several documents: keep one")
    return found[0] if found else {}


def _put(
    node: Given, event: Any, open_nodes: list[tuple[list[Given] | dict[str, Given], list[str]]], found: list[Given]
) -> None:
    """Put a node where it belongs: into the innermost list or mapping, as a key of it, or on top."""
    parent, key = open_nodes[-1] if open_nodes else (found, [])
    if isinstance(parent, list):
        parent.append(node)
    elif key:
        parent[key.pop()] = node
    elif not isinstance(node, str):
        raise _at(event.start_mark, "a key must be a text")
    elif node in parent:
        raise _at(event.start_mark, f"the key {node} is given twice")
    else:
        key.append(node)


def _at(mark: Any, problem: str) -> ValueError:
    return ValueError(f"line {mark.line + 1}: {problem}" if mark else problem)


def short(given: Given) -> str:
    """Return what was given, cut where it is long."""
    text = given if isinstance(given, str) else "several values"
    return text if len(text) <= 100 else f"{text[:80]}..."
