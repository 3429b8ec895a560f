"""Rows of encoders."""

from tests.compat.rows import Row

ROWS: list[Row] = []
