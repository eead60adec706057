"""Building blocks of HTML reports."""
