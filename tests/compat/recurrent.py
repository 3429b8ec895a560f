"""Rows of recurrent."""

from tests.compat.rows import Row

ROWS: list[Row] = []
