"""Everything that starts, wires and measures the parts; the ``twostep`` command lives here."""
