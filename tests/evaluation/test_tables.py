"""The table of an evaluation: aligned columns of text and numbers."""

import pytest

from pcl.evaluation.tables import format_table


def test_the_first_column_is_text_and_the_others_are_numbers():
    found = format_table([["retrieval", "R@1", "median rank"], ["u -> v", "0.9000", "1"], ["v", "0.05", "12.5"]])
    assert found.splitlines() == [
        "retrieval     R@1  median rank",
        "---------  ------  -----------",
        "u -> v     0.9000            1",
        "v            0.05         12.5",
    ]


def test_a_long_cell_widens_its_column():
    lines = format_table([["a", "b"], ["a long name", "123456.789"]]).splitlines()
    assert lines == ["a                     b", "-----------  ----------", "a long name  123456.789"]
    assert len({len(line) for line in lines}) == 1


def test_a_table_of_a_head_alone_has_its_rule():
    assert format_table([["name", "value"]]) == "name  value\n----  -----"


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        format_table([["a", "b"], ["c"]])


def test_text_of_files_is_shown_without_its_escape_sequences():
    assert format_table([["units", "x"], ["m\x1b]0;title\x07", "1\n"]]).isascii()
    lines = format_table([["units", "x"], ["m\x1b]0;title\x07", "1\n"]]).splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[2] == r"m\x1b]0;title\x07  1\n"
    assert len({len(line) for line in lines}) == 1
