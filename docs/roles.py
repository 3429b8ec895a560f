"""For the documentation: docstrings' roles and literal blocks, written for Sphinx, as Markdown."""

import re
from typing import Any

import griffe


class Roles(griffe.Extension):
    """Turn ``:class:`~package.Name``` into ``Name`` as code, and the ``::`` before a block into ``:``."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r":(?:class|func|meth|mod|attr|data):`~[\w.]*?(\w+)`", r"`\1`", obj.docstring.value)
            text = re.sub(r":(?:class|func|meth|mod|attr|data):`", "`", text)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
