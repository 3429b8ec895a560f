"""Rows of functional."""

from tests.compat.rows import Row

ROWS: list[Row] = []
