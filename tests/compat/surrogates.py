"""Rows of surrogates."""

from tests.compat.rows import Row

ROWS: list[Row] = []
