"""jellyfit and SpikingJelly 2.0 name by name; ``docs/migrating.md`` is written from these rows (``make migrating``)."""
