"""A report as static HTML pages: an overview, and a page for each property, that need neither network nor server."""
