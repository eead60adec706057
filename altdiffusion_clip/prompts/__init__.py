"""What people type: made plain, read for weights, parted into windows."""
