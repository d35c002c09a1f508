"""The shared web kit: problems on the wire, pages, entity tags, request identity. No routes."""
