"""What pages for the browser are made of."""
