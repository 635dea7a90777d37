"""Files of callers over HTTP: uploads as multipart forms, and downloads in pieces."""
