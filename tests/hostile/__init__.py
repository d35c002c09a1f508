"""Files and requests made to break a server; generated here, none is kept as a file."""
