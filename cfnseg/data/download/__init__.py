"""Getting the official data: fetch, unpack, convert, count."""
