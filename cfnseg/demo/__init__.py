"""`cfnseg demo`: a page that segments what a visitor drops on it, and the server behind it.

`answers` turns the bytes of an image into an answer, `server` hands it to whom asked.
"""
