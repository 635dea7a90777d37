"""Protocol between front and workers over Redis: queue, frames, acknowledgements, credential operations."""
