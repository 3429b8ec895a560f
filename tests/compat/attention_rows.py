"""Rows of attention."""

from tests.compat.rows import Row

ROWS: list[Row] = []
