"""ASDF and parquet files, read and written whole or by rows, and the data models in them."""
