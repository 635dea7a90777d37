"""What crosses between the front and the workers through Redis: the queue, frames, acknowledgements, operations."""
