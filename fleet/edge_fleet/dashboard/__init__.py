"""The dashboard: files for a browser, served beside the HTTP service whose client it is.

It has no right of its own: everything it shows or does goes through /api/v1 with the token of the
person who looks.
"""
