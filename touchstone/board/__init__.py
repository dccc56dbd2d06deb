"""From records to what people read: the scoreboard in Markdown and HTML, its figures, the summary."""
