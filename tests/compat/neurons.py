"""Rows of neurons."""

from tests.compat.rows import Row

ROWS: list[Row] = []
