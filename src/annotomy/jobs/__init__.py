"""Machine work: enqueued in the transaction that caused it, delivered by pgqueuer, booked in our own `jobs` table."""
