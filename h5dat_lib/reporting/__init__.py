"""An output described to people: figures, charts, a page."""
