"""Rows of layers."""

from tests.compat.rows import Row

ROWS: list[Row] = []
