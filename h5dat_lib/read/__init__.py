"""An output read back: files, tables, columns, and what is searched for in them."""
