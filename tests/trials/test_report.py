"""The table itself."""

from __future__ import annotations

from trials._report import PROPERTY, rows_of, table


def test_rows_are_sorted_by_number_and_columns_are_aligned() -> None:
    rows = [("10 last", "1", "x", "", ""), ("2 gaps", "100", "equal", "all", ""), ("odd", "1", "", "", "FAILED")]
    head, line, *rest = table(rows)
    assert head.split() == ["trial", "count", "found", "aim"]
    assert set(line) == {"-", " "}
    assert [one.split("  ")[0] for one in rest] == ["2 gaps", "10 last", "odd"]
    assert rest[0].index("100") == rest[1].index("1  ") == head.index("count")
    assert rest[2].endswith("FAILED")


def test_a_row_carries_what_became_of_its_test() -> None:
    properties = [("other", 1), (PROPERTY, ["2 gaps", "100", "equal", "all"])]
    assert rows_of(properties, "passed") == [("2 gaps", "100", "equal", "all", "")]
    assert rows_of(properties, "failed") == [("2 gaps", "100", "equal", "all", "FAILED")]
