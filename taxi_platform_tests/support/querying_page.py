"""The queries of docs/querying.md, as the page has them."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "querying.md"
QUERIES = re.findall(r"^### ([^\n]+)\n[^#`]*```sql\n([^`]+)```$", PAGE.read_text("utf-8"), re.MULTILINE)
"""Question and query, in the page's order."""
