"""Many submissions that nobody has read: taken in, graded, recorded, reported."""
