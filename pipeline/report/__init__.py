"""One report of a run, as a JSON-able document, and its renderings as Markdown and as a terminal table."""
