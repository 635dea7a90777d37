"""Import of credentials from text: JSON, CSV, `name=value`, lines; what is plainly none gets a reason instead."""
