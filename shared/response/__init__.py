"""What is in an upstream's response: form, usage, end, errors in disguise; streams into objects and back."""
